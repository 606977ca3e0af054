"""A pose from known points is exact, refuses chance, and knows how sure it is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vladmap.features.colmap import pycolmap
from vladmap.mapping.register import MIN_INLIERS, Registration, register

RNG = np.random.default_rng(3)
CAMERAS = {
    "SIMPLE_PINHOLE": (500.0, 320.0, 240.0),
    "OPENCV_FISHEYE": (400.0, 400.0, 320.0, 240.0, 0.05, -0.01, 0.0, 0.0),
}
TURN = Rotation.from_rotvec([0.2, -0.4, 0.1]).as_matrix()
CENTRE = np.array([400.0, -250.0, 30.0])


def camera_of(model: str) -> pycolmap.Camera:
    return pycolmap.Camera(camera_id=1, model=model, width=640, height=480, params=CAMERAS[model])


def seen(camera: pycolmap.Camera, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (count, 2) and the points (count, 3) that they show, 5 to 40 m away."""
    pixels = RNG.uniform([20, 20], [620, 460], (count, 2))
    rays = np.column_stack([camera.cam_from_img(pixels), np.ones(count)])
    local = rays / np.linalg.norm(rays, axis=1)[:, None] * RNG.uniform(5.0, 40.0, (count, 1))
    return pixels, local @ TURN + CENTRE


@pytest.mark.parametrize("model", sorted(CAMERAS))
def test_exact_correspondences_give_the_exact_pose_whatever_half_of_them_says(model: str) -> None:
    camera = camera_of(model)
    pixels, points = seen(camera, 200)
    wrong = pixels.copy()
    wrong[100:] = RNG.uniform([0, 0], [640, 480], (100, 2))
    found = register(wrong, points, camera)
    assert found is not None
    assert np.abs(found.rotation - TURN).max() < 1e-6
    assert np.abs(found.centre - CENTRE).max() < 1e-5
    assert found.inliers[:100].all()
    assert found.inliers[100:].sum() < 5


def test_chance_is_no_pose() -> None:
    camera = camera_of("SIMPLE_PINHOLE")
    pixels, points = seen(camera, 300)
    assert register(RNG.permutation(pixels), points, camera) is None


def test_fewer_points_than_evidence_needs_are_no_pose_however_often_they_are_given() -> None:
    camera = camera_of("SIMPLE_PINHOLE")
    pixels, points = seen(camera, MIN_INLIERS - 1)
    assert register(pixels, points, camera) is None
    assert register(np.tile(pixels, (3, 1)), np.tile(points, (3, 1)), camera) is None
    pixels, points = seen(camera, MIN_INLIERS)
    assert register(pixels, points, camera) is not None


def test_the_same_correspondences_give_the_same_pose() -> None:
    camera = camera_of("SIMPLE_PINHOLE")
    pixels, points = seen(camera, 60)
    pixels += RNG.normal(0, 1.0, pixels.shape)
    one, other = (register(pixels, points, camera) for _ in range(2))
    assert one is not None
    assert other is not None
    assert np.array_equal(one.rotation, other.rotation)
    assert np.array_equal(one.covariance, other.covariance)


@pytest.mark.parametrize("model", sorted(CAMERAS))
def test_its_covariance_is_that_of_poses_from_many_noisy_photographs(model: str) -> None:
    """By 300 draws of pixel noise; a standard deviation of so many is good to some 5 %."""
    camera = camera_of(model)
    pixels, points = seen(camera, 40)
    found: list[Registration] = []
    for _ in range(300):
        one = register(pixels + RNG.normal(0, 0.7, pixels.shape), points, camera)
        assert one is not None
        found.append(one)
    centres = np.array([one.centre for one in found])
    turns = Rotation.from_matrix(np.array([one.rotation @ TURN.T for one in found])).as_rotvec()
    measured = np.std(np.hstack([centres, turns]), axis=0)
    predicted = np.sqrt(np.median([np.diag(one.covariance) for one in found], axis=0))
    assert np.abs(measured / predicted - 1).max() < 0.3
    assert np.abs(centres.mean(axis=0) - CENTRE).max() < 0.5 * measured[:3].max()
    assert found[0].centre_sigma() >= predicted[:3].max() * 0.7


def test_points_in_one_direction_leave_the_pose_open_and_it_says_so() -> None:
    """All points on the optical axis's ray bundle of one pixel: the distance is anybody's guess."""
    camera = camera_of("SIMPLE_PINHOLE")
    pixels, points = seen(camera, 40)
    near = register(pixels, points, camera)
    narrow = np.linspace(0.0, 1.0, 40)[:, None] * [4.0, 3.0] + [318.0, 238.5]
    rays = np.column_stack([camera.cam_from_img(narrow), np.ones(40)])
    far = register(narrow, (rays * 40.0) @ TURN + CENTRE, camera)
    assert near is not None
    assert far is None or far.centre_sigma() > 10 * near.centre_sigma()
