"""How photographs are held: against dense linear algebra, and on models moved by a known step."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.mapping.test_tile_merge import FOCAL, IMAGES, arrays_of, model_of, street
from vladmap.features.colmap import pycolmap
from vladmap.mapping import uncertainty
from vladmap.mapping.tile_arrays import TileArrays
from vladmap.mapping.uncertainty import Rays, _aligned, held_positions, measured_by

NOISE_PX = 0.3


def noisy(numbers: range, seed: int = 0) -> pycolmap.Reconstruction:
    """The street's model, with noise in its keypoints after it was adjusted to exact ones."""
    model, rng = model_of(numbers), np.random.default_rng(seed)
    other = pycolmap.Reconstruction()
    other.add_camera_with_trivial_rig(model.camera(1))
    for number in sorted(model.reg_image_ids()):
        image = model.image(number)
        pixels = np.array([point.xy for point in image.points2D])
        moved = pixels + rng.normal(0, NOISE_PX, pixels.shape)
        other.add_image_with_trivial_frame(
            pycolmap.Image(name=image.name, keypoints=moved, camera_id=1, image_id=number),
            image.cam_from_world(),
        )
    for _, point in sorted(model.points3D.items()):
        other.add_point3D(point.xyz, point.track, np.zeros(3, np.uint8))
    return other


def move(model: pycolmap.Reconstruction, number: int, step: np.ndarray) -> None:
    image = model.image(number)
    turn = image.cam_from_world().rotation.matrix()
    centre = np.asarray(image.projection_center()) + step
    model.frame(image.frame_id).rig_from_world = pycolmap.Rigid3d(
        pycolmap.Rotation3d(turn), -turn @ centre
    )


def rays_of(model: pycolmap.Reconstruction, arrays: TileArrays) -> Rays:
    return measured_by(model, arrays).rays(slice(None), arrays)


def dense_jacobian(rays: Rays, images: int, points: int) -> np.ndarray:
    """Derivatives of the residuals by positions, turns and points, by finite differences."""
    count = len(rays.image)
    whole = np.zeros((2 * count, 6 * images + 3 * points))
    for k in range(count):
        place = rays.distance[k] * rays.ray[k]
        for axis in range(3):
            step = np.zeros(3)
            step[axis] = 1e-6
            moved = (place + step) / np.linalg.norm(place + step) - rays.ray[k]
            by_point = rays.focal[k] * rays.tangents[k] @ moved / 1e-6
            by_turn = rays.focal[k] * rays.tangents[k] @ np.cross(step, rays.ray[k]) / 1e-6
            rows = slice(2 * k, 2 * k + 2)
            whole[rows, 6 * images + 3 * rays.point[k] + axis] = by_point
            whole[rows, 6 * rays.image[k] + axis] = -by_point
            whole[rows, 6 * rays.image[k] + 3 + axis] = by_turn
    return whole


@pytest.mark.medium
def test_sigma_is_that_of_the_dense_covariance_of_all_unknowns_after_alignment() -> None:
    numbers = range(4, 12)
    model = noisy(numbers)
    arrays = arrays_of(model)
    rays = rays_of(model, arrays)
    images, points = len(numbers), len(arrays.places)
    jacobian = dense_jacobian(rays, images, points)
    length = np.linalg.norm(rays.residual, axis=1)
    weight = np.repeat(1 / (1 + length**2), 2)
    free = (2 * len(length) - 3 * points - 6 * images) / (2 * len(length))
    inverse = np.linalg.pinv(jacobian.T @ (weight[:, None] * jacobian), rcond=1e-10)
    from_noise = inverse @ (jacobian.T * weight)
    size = np.maximum(length / np.sqrt(2 * free), held_positions(model, arrays).noise_px)
    covariance = (from_noise * np.repeat(size, 2) ** 2) @ from_noise.T
    root = np.linalg.svd(covariance)
    draws = (root[0] * np.sqrt(root[1]))[: 6 * images].reshape(images, 6, -1)[:, :3]
    expected = np.sqrt((_aligned(draws, arrays.centres) ** 2).sum(axis=(1, 2)))
    # 96 draws of three coordinates: 4 % is one standard deviation.
    np.testing.assert_allclose(held_positions(model, arrays).sigma, expected, rtol=0.3)


def test_the_noise_of_the_keypoints_is_found() -> None:
    model = noisy(range(IMAGES))
    held = held_positions(model, arrays_of(model))
    # Its points were not adjusted to the noise: the residuals are the noise, and the correction
    # for what poses and points would have fitted is known.
    arrays = arrays_of(model)
    count = len(arrays.seen_by)
    free = (2 * count - 3 * len(arrays.places) - 6 * IMAGES) / (2 * count)
    assert held.noise_px * np.sqrt(free) == pytest.approx(NOISE_PX, rel=0.05)


def test_a_photograph_that_was_moved_has_the_step_back_left() -> None:
    model = model_of(range(IMAGES))
    step = np.array([0.02, -0.01, 0.005])
    move(model, 12, step)
    left = held_positions(model, arrays_of(model)).left
    others = np.delete(np.arange(IMAGES), 11)
    # The weights of a robust loss keep a part of it for later iterations, and the others still.
    assert np.linalg.norm(left[11] + step) < 0.5 * np.linalg.norm(step)
    assert np.linalg.norm(left[others], axis=1).max() < 0.3 * np.linalg.norm(step)


def test_an_exact_model_has_nothing_left() -> None:
    model = model_of(range(IMAGES))
    held = held_positions(model, arrays_of(model))
    assert np.abs(held.left).max() < 1e-6
    assert held.sigma.max() < 1e-6


def test_the_ends_of_a_street_are_held_less_than_its_middle() -> None:
    model = noisy(range(IMAGES))
    sigma = held_positions(model, arrays_of(model)).sigma
    assert sigma[[0, -1]].min() > 1.5 * np.median(sigma)


def test_a_model_without_observations_is_held_by_nothing() -> None:
    model = model_of(range(3))
    for number in list(model.points3D):
        model.delete_point3D(number)
    assert np.isinf(held_positions(model, arrays_of(model)).sigma).all()


def test_the_same_model_gives_the_same_numbers() -> None:
    model = noisy(range(10))
    first, again = (held_positions(model, arrays_of(model)) for _ in range(2))
    np.testing.assert_array_equal(first.sigma, again.sigma)


def test_a_few_observations_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the draws, which are others: all points but those of one part are in others."""
    model = noisy(range(12))
    arrays = arrays_of(model)
    whole = held_positions(model, arrays)
    monkeypatch.setattr(uncertainty, "_AT_ONCE", 500)
    seen = measured_by(model, arrays)
    parts = [seen.point[rows] for rows in seen.parts()]
    assert len(parts) > 3
    assert all(a[-1] < b[0] for a, b in itertools.pairwise(parts))
    assert sum(map(len, parts)) == len(seen.point)
    again = held_positions(model, arrays)
    np.testing.assert_allclose(again.left, whole.left, atol=1e-7)
    np.testing.assert_allclose(again.sigma, whole.sigma, rtol=0.35)


def test_a_similarity_of_all_positions_is_no_error() -> None:
    centres = np.random.default_rng(3).normal(0, 20, (9, 3))
    turn = np.array([0.01, -0.02, 0.03])
    steps = 0.05 * centres + np.cross(turn, centres) + [1.0, 2.0, 3.0]
    moved = _aligned(steps[:, :, None], centres)
    np.testing.assert_allclose(moved, 0.0, atol=1e-9)


def test_what_comes_loose_does_not_move_the_others() -> None:
    rng = np.random.default_rng(4)
    centres, steps = rng.normal(0, 20, (30, 3)), rng.normal(0, 0.01, (30, 3, 40))
    steps[:3] += 50.0
    moved = np.linalg.norm(_aligned(steps, centres), axis=1)
    assert moved[:3].min() > 49
    assert moved[3:].max() < 0.5


def test_pixels_a_radian_are_those_of_the_camera() -> None:
    model = model_of(range(6))
    rays = rays_of(model, arrays_of(model))
    _, ahead, _ = street()
    cosine = np.einsum("ki,ki->k", rays.ray, ahead[rays.image][:, :, 2])
    # A plane image stretches by 1 / cos^2 away from its middle, and by 1 / cos across that.
    np.testing.assert_allclose(rays.focal, FOCAL / cosine**1.5, rtol=0.02)
