"""Arrow schemas of what is known of drives: the loops between them, and how they drift."""

from __future__ import annotations

import pyarrow as pa

from vladmap.schemas.fields import field as _field
from vladmap.schemas.fields import table as _schema

LOOPS = _schema(
    "loops",
    [
        _field("image_id_a", pa.string(), note="image_id_a < image_id_b"),
        _field("image_id_b", pa.string()),
        _field("kept", pa.bool_(), note="whether the pair is trusted"),
        _field("verdict", pa.string(), note="as in two_views: kept, or why it is not"),
        _field("probability", pa.float32(), nullable=True, note="as in two_views"),
        _field("inliers", pa.int32()),
        _field("same_drive", pa.bool_(), note="both are of one drive, over 15 places apart"),
        _field("distance_m", pa.float32(), "m", nullable=True, note="as in two_views"),
        _field("gap_m", pa.float32(), "m", nullable=True, note="along the drive, between the two"),
        _field("gap_s", pa.float64(), "s", nullable=True, note="between their captures"),
        _field(
            "agreeing",
            pa.int32(),
            nullable=True,
            note="other loops between the same two stretches of drives that are consistent with it;"
            " null where its length or the odometry there is not known",
        ),
        _field(
            "largest",
            pa.int32(),
            nullable=True,
            note="loops in the largest consistent set between these two stretches",
        ),
        _field("in_largest", pa.bool_(), nullable=True, note="it is one of that set"),
        _field(
            "odometry_sigmas",
            pa.float32(),
            nullable=True,
            note="how far the cycle with the odometry between its two photographs is from closing,"
            " in standard deviations",
        ),
    ],
)

DRIVES = _schema(
    "drives",
    [
        _field("sequence_id", pa.string()),
        _field("images", pa.int32(), note="photographs of the drive, without duplicates"),
        _field(
            "chained",
            pa.int32(),
            note="of them, in the longest piece that pairs of neighbours connect; what follows is"
            " of that piece",
        ),
        _field("length_m", pa.float64(), "m", nullable=True, note="by odometry"),
        _field(
            "drift_m",
            pa.float64(),
            "m",
            nullable=True,
            note="between the last photograph where odometry alone puts it, and in the pose graph",
        ),
        _field("drift_share", pa.float64(), nullable=True, note="drift_m over length_m"),
        _field(
            "metric",
            pa.bool_(),
            nullable=True,
            note="whether GPS gives the scale; else lengths are of a guessed one",
        ),
    ],
)
