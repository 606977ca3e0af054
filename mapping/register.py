"""Photographs that join a map: the pose against its points, where enough of them agree."""

from __future__ import annotations

import numpy as np

from vladmap.mapping.absolute_pose import AbsolutePose, absolute_pose
from vladmap.mapping.arrays import Array
from vladmap.mapping.camera import Camera

MIN_INLIERS = 15
"""As many as a verified pair and as evidence need."""
# COLMAP's bound for registering an image: below it, most of what agrees does so by chance.
_MIN_INLIER_SHARE = 0.25


def register(pixels: Array, points: Array, camera: Camera) -> AbsolutePose | None:
    """Return the pose from which `points` (k, 3) are seen at `pixels` (k, 2), or None.

    None: fewer than MIN_INLIERS different points agree on any pose, or a smaller share of all
    correspondences than a quarter. The intrinsics stay.
    """
    if len(pixels) < MIN_INLIERS:
        return None
    found = absolute_pose(pixels, points, camera, tolerance=1.0)
    if found is None or found.inliers.mean() < _MIN_INLIER_SHARE:
        return None
    distinct = min(len(np.unique(each[found.inliers], axis=0)) for each in (pixels, points))
    return found if distinct >= MIN_INLIERS else None
