"""What all uses of COLMAP share: the seed, and its rotations as quaternions w, x, y, z."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vladmap.features.colmap import pycolmap

SEED = 0


def wxyz(rotation: pycolmap.Rotation3d) -> NDArray[np.float64]:
    """Return a rotation as a unit quaternion w, x, y, z with w >= 0."""
    x, y, z, w = np.asarray(rotation.quat, np.float64)
    quaternion = np.array([w, x, y, z])
    return -quaternion if w < 0 else quaternion


def rotation_of(quaternion: NDArray[np.float64]) -> pycolmap.Rotation3d:
    """Return the rotation of a quaternion w, x, y, z."""
    w, x, y, z = quaternion
    return pycolmap.Rotation3d(np.array([x, y, z, w]))
