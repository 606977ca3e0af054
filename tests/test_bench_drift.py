"""The end-point drift of benchmarks.drift, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.drift import end_error_m

TRUTH = np.array([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0], [20.0, 0.0, 0.0]])


def test_a_drive_in_another_frame_and_scale_has_no_drift() -> None:
    """Camera poses and positions turned together, everything three times as large."""
    frame = Rotation.from_euler("zx", [40, 20], degrees=True).as_matrix()
    camera = Rotation.from_euler("y", 15, degrees=True).as_matrix()
    place = 3.0 * TRUTH @ frame.T + [5.0, 6.0, 7.0]
    assert end_error_m(place, camera @ frame.T, TRUTH, camera) < 1e-9


def test_a_turn_half_way_moves_the_end_by_its_chord() -> None:
    """The second 10 m go north: 10 m to the side, and 10 m short."""
    place = np.array([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0], [10.0, 10.0, 0.0]])
    assert end_error_m(place, np.eye(3), TRUTH, np.eye(3)) == pytest.approx(np.hypot(10, 10))


def test_a_wrong_first_rotation_swings_the_whole_drive() -> None:
    """Ten degrees at 20 m: a chord of 2 * 20 * sin(5 deg)."""
    turned = Rotation.from_euler("z", 10, degrees=True).as_matrix()
    expected = 40 * np.sin(np.radians(5))
    assert end_error_m(TRUTH, turned, TRUTH, np.eye(3)) == pytest.approx(expected)
