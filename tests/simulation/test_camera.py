"""Poses and projection, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vladmap.simulation.camera import Camera, Poses, project


def one_pose(heading: float, pitch: float = 0.0, roll: float = 0.0) -> Poses:
    angles = (np.array([angle]) for angle in (heading, pitch, roll))
    return Poses.looking(np.array([[1.0, 2.0, 3.0]]), *angles)


def test_a_point_ahead_projects_to_the_principal_point() -> None:
    pixels, depth = project(np.array([[1.0, 12.0, 3.0]]), one_pose(heading=0.0), Camera())
    np.testing.assert_allclose(pixels[0, 0], [320.0, 240.0])
    assert depth[0, 0] == pytest.approx(10.0)


def test_east_is_right_and_up_is_up_when_looking_north() -> None:
    # 10 m ahead, 1 m to the east, 2 m up: 425 / 10 px to the right, 2 * 425 / 10 px up.
    pixels, _ = project(np.array([[2.0, 12.0, 5.0]]), one_pose(heading=0.0), Camera())
    np.testing.assert_allclose(pixels[0, 0], [320.0 + 42.5, 240.0 - 85.0])


def test_heading_turns_clockwise_and_pitch_looks_up() -> None:
    east = one_pose(heading=90.0)
    np.testing.assert_allclose(east.rotation[0, 2], [1.0, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(east.headings(), [90.0])
    up = one_pose(heading=0.0, pitch=30.0)
    np.testing.assert_allclose(up.rotation[0, 2], [0.0, np.sqrt(0.75), 0.5], atol=1e-12)


def test_roll_clockwise_lowers_the_right_side_of_the_camera() -> None:
    # The camera's right axis then points below the horizon.
    assert one_pose(heading=0.0, roll=10.0).rotation[0, 0, 2] == pytest.approx(
        -np.sin(np.radians(10))
    )


def test_rotations_are_proper_and_equal_to_their_quaternions() -> None:
    rng = np.random.default_rng(0)
    poses = Poses.looking(
        np.zeros((50, 3)),
        rng.uniform(0, 360, 50),
        rng.uniform(-89, 89, 50),
        rng.uniform(-180, 180, 50),
    )
    identity = np.broadcast_to(np.eye(3), (50, 3, 3))
    np.testing.assert_allclose(poses.rotation @ poses.rotation.swapaxes(1, 2), identity, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(poses.rotation), 1.0)
    w, x, y, z = poses.quaternions().T
    assert (w >= 0).all()
    rotation = np.stack(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    ).transpose(2, 0, 1)
    np.testing.assert_allclose(rotation, poses.rotation, atol=1e-12)
