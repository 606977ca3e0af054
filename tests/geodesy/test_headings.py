"""Headings of cameras, from rotations written down by their axes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vladmap.geodesy.headings import headings_deg


@pytest.mark.parametrize("heading", [0.0, 45.0, 90.0, 179.5, 270.0, 359.0])
@pytest.mark.parametrize("roll", [0.0, 90.0])
@pytest.mark.parametrize("length", [1.0, -3.0])
def test_a_heading_is_that_of_the_optical_axis_however_the_camera_is_rolled(
    heading: float, roll: float, length: float
) -> None:
    turned = math.radians(heading)
    forward = np.array([math.sin(turned), math.cos(turned), 0.0])
    right = np.array([math.cos(turned), -math.sin(turned), 0.0])
    camera_from_enu = Rotation.from_matrix([right, [0.0, 0.0, -1.0], forward])
    x, y, z, w = (Rotation.from_euler("z", roll, degrees=True) * camera_from_enu).as_quat()
    (found,) = headings_deg(length * np.array([[w, x, y, z]]))
    assert found == pytest.approx(heading, abs=1e-6)


def test_a_camera_that_looks_straight_up_or_down_has_no_heading() -> None:
    # Half a turn about east: the optical axis, up in ENU before, points down.
    assert np.isnan(headings_deg([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])).all()
