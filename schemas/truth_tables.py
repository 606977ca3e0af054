"""Arrow schemas of what is written beside rendered photographs: where they were truly taken."""

from __future__ import annotations

import pyarrow as pa

from vladmap.schemas.fields import field as _field
from vladmap.schemas.fields import table as _schema

TRUTH = _schema(
    "truth",
    [
        _field("image_id", pa.string()),
        _field("path", pa.string(), note="relative to the collection's root"),
        _field("latitude", pa.float64(), "degree"),
        _field("longitude", pa.float64(), "degree"),
        _field("altitude", pa.float64(), "m"),
        _field("east", pa.float64(), "m", note="in the ENU frame of the metadata's origin"),
        _field("north", pa.float64(), "m"),
        _field("up", pa.float64(), "m"),
        _field("qw", pa.float64(), note="rotation of camera_from_enu"),
        _field("qx", pa.float64()),
        _field("qy", pa.float64()),
        _field("qz", pa.float64()),
        _field("camera_model", pa.string(), note="COLMAP's name"),
        _field("width", pa.int32(), "px"),
        _field("height", pa.int32(), "px"),
        _field("fx", pa.float64(), "px"),
        _field("fy", pa.float64(), "px"),
        _field("cx", pa.float64(), "px"),
        _field("cy", pa.float64(), "px"),
    ],
)

TRUTH_PAIRS = _schema(
    "truth_pairs",
    [
        _field("image_id_a", pa.string(), note="image_id_a < image_id_b"),
        _field("image_id_b", pa.string()),
        _field("share", pa.float32(), note="the smaller of share_a and share_b"),
        _field(
            "share_a",
            pa.float32(),
            note="of the surfaces that a shows within 100 m, by pixels: how many b shows as well",
        ),
        _field("share_b", pa.float32()),
        _field(
            "angle_deg",
            pa.float32(),
            "degree",
            note="between the rays from the two cameras to what both show, on average",
        ),
        _field("distance_m", pa.float64(), "m", note="between the cameras"),
    ],
)
