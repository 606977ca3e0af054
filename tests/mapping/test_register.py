"""A photograph joins a map where enough different points agree, and not by chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vladmap.mapping.camera import Camera
from vladmap.mapping.register import MIN_INLIERS, register

RNG = np.random.default_rng(3)
CAMERAS = {
    "SIMPLE_PINHOLE": (500.0, 320.0, 240.0),
    "OPENCV_FISHEYE": (400.0, 400.0, 320.0, 240.0, 0.05, -0.01, 0.0, 0.0),
}
TURN = Rotation.from_rotvec([0.2, -0.4, 0.1]).as_matrix()
CENTRE = np.array([400.0, -250.0, 30.0])


def camera_of(model: str) -> Camera:
    return Camera(model, 640, 480, CAMERAS[model], True)


def seen(camera: Camera, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (count, 2) and the points (count, 3) that they show, 5 to 40 m away."""
    pixels = RNG.uniform([20, 20], [620, 460], (count, 2))
    rays = np.column_stack([camera.to_colmap().cam_from_img(pixels), np.ones(count)])
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
    assert np.abs(found.rotation - TURN).max() < 1e-5
    assert np.abs(found.centre - CENTRE).max() < 1e-3
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
