"""Which way a camera looks over the ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def headings_deg(quaternions: ArrayLike) -> NDArray[np.float64]:
    """Headings in degrees clockwise from north, (n,), of rotations (n, 4) w, x, y, z.

    These are camera_from_enu, as in `poses.parquet`, of any length. The optical axis in ENU is the
    third row of the rotation matrix. A camera that looks straight up or down has none: NaN.
    """
    rotations = np.asarray(quaternions, np.float64)
    norm = np.linalg.norm(rotations, axis=1)
    qw, qx, qy, qz = (rotations / np.where(norm > 0, norm, np.nan)[:, None]).T
    east = 2 * (qx * qz - qw * qy)
    north = 2 * (qy * qz + qw * qx)
    level = np.hypot(east, north) > 1e-6
    return np.where(level, np.degrees(np.arctan2(east, north)) % 360.0, np.nan)
