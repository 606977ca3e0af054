"""What is known of a rendered collection: where each photograph was taken, and by which camera."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from vladmap.geodesy.wgs84 import enu_to_geodetic
from vladmap.photos.ids import image_id
from vladmap.schemas.truth_tables import TRUTH, TRUTH_PAIRS
from vladmap.simulation.camera import Camera, Poses
from vladmap.simulation.fisheye import Fisheye
from vladmap.simulation.overlap import CommonSurfaces

ORIGIN = (48.2082, 16.3738, 171.0)  # latitude, longitude, ellipsoidal height of ENU's origin


def truth_table(
    paths: Sequence[str], poses: Poses, cameras: Sequence[Camera | Fisheye]
) -> pa.Table:
    """The table TRUTH of N photographs, with the origin of its ENU frame in its metadata."""
    geodetic = enu_to_geodetic(poses.centre, ORIGIN)
    quaternions = poses.quaternions()
    columns = {
        "image_id": [image_id(path) for path in paths],
        "path": paths,
        **{name: geodetic[:, k] for k, name in enumerate(("latitude", "longitude", "altitude"))},
        **{name: poses.centre[:, k] for k, name in enumerate(("east", "north", "up"))},
        **{name: quaternions[:, k] for k, name in enumerate(("qw", "qx", "qy", "qz"))},
        "camera_model": [camera.model for camera in cameras],
        **{
            name: np.array([getattr(camera, name) for camera in cameras], np.int32)
            for name in ("width", "height")
        },
        **{
            name: np.array([getattr(camera, name) for camera in cameras], np.float64)
            for name in ("fx", "fy", "cx", "cy")
        },
    }
    origin = dict(zip(("latitude", "longitude", "altitude"), map(repr, ORIGIN), strict=True))
    metadata = {f"vladmap:origin_{name}": value for name, value in origin.items()}
    schema = TRUTH.with_metadata({**(TRUTH.metadata or {}), **metadata})
    return pa.table(columns, schema=schema)


def truth_pairs_table(paths: Sequence[str], common: CommonSurfaces, poses: Poses) -> pa.Table:
    """The table TRUTH_PAIRS of pairs among N photographs, sorted by their ids."""
    ids = np.array([image_id(path) for path in paths], dtype=object)
    first, second = common.pairs.T
    swapped = ids[first] > ids[second]
    a, b = np.where(swapped, second, first), np.where(swapped, first, second)
    share = np.where(swapped[:, None], common.shares[:, ::-1], common.shares)
    order = np.lexsort((ids[b], ids[a]))
    a, b, share = a[order], b[order], share[order]
    columns = {
        "image_id_a": ids[a].tolist(),
        "image_id_b": ids[b].tolist(),
        "share": share.min(1, initial=1.0),
        "share_a": share[:, 0],
        "share_b": share[:, 1],
        "angle_deg": common.angles_deg[order],
        "distance_m": np.linalg.norm(poses.centre[a] - poses.centre[b], axis=1),
    }
    return pa.table(columns, schema=TRUTH_PAIRS)
