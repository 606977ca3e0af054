"""Cameras as JSON-able dictionaries.

A camera is `{"model": COLMAP's name, "width": px, "height": px, "params": [float, ...],
"has_prior_focal_length": bool}`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vladmap.features.colmap import pycolmap

Camera = dict[str, Any]

SEED = 0


def to_colmap(camera: Camera, camera_id: int = 1) -> pycolmap.Camera:
    """Return the COLMAP camera of a camera dictionary."""
    return pycolmap.Camera(
        camera_id=camera_id,
        model=camera["model"],
        width=camera["width"],
        height=camera["height"],
        params=camera["params"],
        has_prior_focal_length=camera["has_prior_focal_length"],
    )


def from_colmap(camera: pycolmap.Camera) -> Camera:
    """Return the camera dictionary of a COLMAP camera."""
    return {
        "model": camera.model_name,
        "width": int(camera.width),
        "height": int(camera.height),
        "params": [float(value) for value in camera.params],
        "has_prior_focal_length": bool(camera.has_prior_focal_length),
    }


def wxyz(rotation: pycolmap.Rotation3d) -> NDArray[np.float64]:
    """Return a rotation as a unit quaternion w, x, y, z with w >= 0."""
    x, y, z, w = np.asarray(rotation.quat, np.float64)
    quaternion = np.array([w, x, y, z])
    return -quaternion if w < 0 else quaternion


def rotation_of(quaternion: NDArray[np.float64]) -> pycolmap.Rotation3d:
    """Return the rotation of a quaternion w, x, y, z."""
    w, x, y, z = quaternion
    return pycolmap.Rotation3d(np.array([x, y, z, w]))
