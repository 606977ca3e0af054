"""Poses from points of a map, against cameras that were set up by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vladmap.mapping.absolute_pose import AbsolutePose, absolute_pose
from vladmap.mapping.camera import Camera
from vladmap.mapping.rotations import rotation_matrix

LENS = Camera("SIMPLE_RADIAL", 1280, 960, (1000.0, 640.0, 480.0, -0.05), True)
ROTATION = rotation_matrix(np.array([0.3, -0.2, 0.1]))
CENTRE = np.array([2.0, 1.0, -3.0])


def seen(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(pixels, points of the map) that the camera truly sees."""
    inside = np.stack(
        [rng.uniform(-4, 4, count), rng.uniform(-3, 3, count), rng.uniform(6, 25, count)], axis=1
    )
    pixels = np.asarray(LENS.to_colmap().img_from_cam(inside))
    return pixels, (inside + ROTATION @ CENTRE) @ ROTATION


def turn_between(pose: AbsolutePose) -> np.ndarray:
    """The small turn about the map's axes by which a pose differs from the truth, (3,) radians."""
    apart = pose.rotation.T @ ROTATION
    skew = (apart - apart.T) / 2
    return skew[[2, 0, 1], [1, 2, 0]]


def test_the_pose_is_found_though_six_of_ten_correspondences_are_wrong() -> None:
    rng = np.random.default_rng(0)
    pixels, points = seen(100, rng)
    wrong = np.arange(100) < 60
    pixels[wrong] = rng.uniform((0, 0), (1280, 960), (60, 2))
    pose = absolute_pose(pixels, points, LENS)
    assert pose is not None
    np.testing.assert_allclose(pose.centre, CENTRE, atol=1e-4)
    np.testing.assert_allclose(pose.rotation, ROTATION, atol=1e-5)
    assert pose.inliers[~wrong].all()
    assert pose.inliers[wrong].sum() <= 3
    assert pose.error_px < 0.01
    assert pose.camera == LENS


def test_a_focal_length_that_is_not_known_is_found() -> None:
    pixels, points = seen(100, np.random.default_rng(1))
    start = Camera("SIMPLE_RADIAL", 1280, 960, (1536.0, 640.0, 480.0, -0.05), False)
    pose = absolute_pose(pixels, points, start, focal_known=False)
    assert pose is not None
    assert pose.camera.focal_px == pytest.approx(1000.0, rel=1e-3)
    np.testing.assert_allclose(pose.centre, CENTRE, atol=1e-2)
    wrong = absolute_pose(pixels, points, start)  # believed, the wrong one puts the camera behind
    assert wrong is None or np.linalg.norm(wrong.centre - CENTRE) > 1.0


def test_a_pose_projects_points_to_where_they_were_seen_and_none_from_behind() -> None:
    pixels, points = seen(30, np.random.default_rng(2))
    pose = absolute_pose(pixels, points, LENS)
    assert pose is not None
    back = CENTRE - 5 * ROTATION[2]
    found, depths = pose.project(np.concatenate([points, back[None]]))
    np.testing.assert_allclose(found[:-1], pixels, atol=1e-2)
    assert np.isnan(found[-1]).all()
    assert depths[-1] == pytest.approx(-5.0, abs=1e-3)


def test_too_few_correspondences_are_no_pose_and_noise_alone_is_none() -> None:
    rng = np.random.default_rng(3)
    pixels, points = seen(40, rng)
    assert absolute_pose(pixels[:5], points[:5], LENS) is None
    assert absolute_pose(np.zeros((0, 2)), np.zeros((0, 3)), LENS) is None
    pose = absolute_pose(rng.uniform((0, 0), (1280, 960), (40, 2)), points, LENS)
    assert pose is None or pose.inliers.sum() < 10


def test_the_same_correspondences_give_the_same_pose() -> None:
    rng = np.random.default_rng(4)
    pixels, points = seen(60, rng)
    pixels += rng.normal(0, 1, pixels.shape)
    first, again = (absolute_pose(pixels, points, LENS) for _ in range(2))
    assert first is not None
    assert again is not None
    assert first.translation.tobytes() == again.translation.tobytes()
    assert first.covariance.tobytes() == again.covariance.tobytes()


@pytest.mark.parametrize("known", [True, False])
def test_the_covariance_is_what_noise_of_the_keypoints_does(known: bool) -> None:
    """Against 150 draws of one pixel of noise: standard deviations within a quarter."""
    rng = np.random.default_rng(5)
    pixels, points = seen(80, rng)
    start = Camera(LENS.model, 1280, 960, LENS.params, known)
    offsets, predicted = [], []
    for _ in range(150):
        noisy = pixels + rng.normal(0, 1, pixels.shape)
        pose = absolute_pose(noisy, points, start, focal_known=known)
        assert pose is not None
        offsets.append(np.concatenate([pose.centre - CENTRE, turn_between(pose)]))
        predicted.append(pose.covariance)
    ratio = np.std(offsets, axis=0) / np.sqrt(np.diag(np.mean(predicted, axis=0)))
    assert ((ratio > 0.75) & (ratio < 1.25)).all(), ratio


def test_points_in_one_direction_leave_the_position_open_and_it_says_so() -> None:
    """All within half a degree of the optical axis: the distance is anybody's guess."""
    pixels, points = seen(40, np.random.default_rng(6))
    near = absolute_pose(pixels, points, LENS)
    narrow = np.linspace(0.0, 1.0, 40)[:, None] * [8.0, 6.0] + [636.0, 477.0]
    rays = np.column_stack([LENS.to_colmap().cam_from_img(narrow), np.ones(40)])
    noisy = narrow + np.random.default_rng(7).normal(0, 0.5, narrow.shape)
    far = absolute_pose(noisy, (rays * 40.0 + ROTATION @ CENTRE) @ ROTATION, LENS)
    assert near is not None
    assert far is None or np.trace(far.covariance[:3, :3]) > 100 * np.trace(near.covariance[:3, :3])
