"""Photographs of another day along drives: not of the collection, to be localised in its map."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from vladmap.simulation.camera import Poses

BESIDE_M = 1.2
"""They are taken so far to the left of the drive, as of a car in another lane."""
TURNED_DEG = 6.0
"""They look so far to the left and to the right of the way, in turn."""


def query_poses(drives: Poses, count: int) -> Poses:
    """`count` poses spread evenly over those of drives, (N,): between a photograph and the next.

    Where one drive ends and another begins the pose is beside the photograph before.
    """
    at = np.linspace(0, len(drives) - 2, count).round().astype(np.int64)
    here, ahead = drives.centre[at], drives.centre[at + 1]
    apart = np.linalg.norm(ahead - here, axis=1, keepdims=True)
    middle = np.where(apart < 10.0, (here + ahead) / 2, here)
    left = -drives.rotation[at][:, 0] * [1.0, 1.0, 0.0]
    turn = np.where(np.arange(count) % 2 == 0, TURNED_DEG, -TURNED_DEG)
    about_up = Rotation.from_euler("z", turn[:, None], degrees=True).as_matrix()
    return Poses(middle + BESIDE_M * left, drives.rotation[at] @ about_up)
