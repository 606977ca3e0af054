"""Issue 19, 2: a camera is chosen on the images that verified matches connect, not by a cosine."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vladmap.features.base import LocalFeatures
from vladmap.features.rootsift import KIND
from vladmap.mapping.camera import Camera
from vladmap.mapping.camera_keys import initial_camera
from vladmap.mapping.camera_trials import choose_camera
from vladmap.mapping.trial_images import Evidence, trial_images

pytestmark = pytest.mark.medium

WIDTH, HEIGHT = 800, 600
PINHOLE = Camera("SIMPLE_PINHOLE", WIDTH, HEIGHT, (700.0, WIDTH / 2, HEIGHT / 2), True)
FISHEYE = Camera(
    "OPENCV_FISHEYE", WIDTH, HEIGHT,
    (330.0, 330.0, WIDTH / 2, HEIGHT / 2, 0.05, 0.01, 0.0, 0.0), True,
)  # fmt: skip


def street(
    name: str, places: list[float], camera: Camera = PINHOLE, seed: int = 0
) -> dict[str, LocalFeatures]:
    """Features of a drive: at each place, in metres along a street of houses, one image ahead.

    Every point of the street has a descriptor of its own.
    """
    rng = np.random.default_rng(seed)
    count = 2500
    side = rng.choice([-8.0, 8.0], count) + rng.normal(0, 0.8, count)
    points = np.stack([side, rng.uniform(-6, 2, count), rng.uniform(0, 80, count)], axis=1)
    descriptors = rng.integers(0, 70, (count, 128), dtype=np.uint8)
    features = {}
    for number, place in enumerate(places):
        turn = np.radians(rng.normal(0, 3))
        rotation = np.array(
            [[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]]
        )
        local = (points - [rng.normal(0, 0.5), 0.0, place]) @ rotation.T
        ahead = np.flatnonzero((local[:, 2] > 1.0) & (local[:, 2] < 40.0))
        pixel = camera.to_colmap().img_from_cam(local[ahead])
        inside = (pixel > 0).all(axis=1) & (pixel < [WIDTH, HEIGHT]).all(axis=1)
        keypoints = np.zeros((int(inside.sum()), 4), np.float32)
        keypoints[:, :2] = pixel[inside] + rng.normal(0, 0.3, (len(keypoints), 2))
        features[f"{name}{number:02d}"] = LocalFeatures(keypoints, descriptors[ahead[inside]])
    return features


def every_pair(features: dict[str, LocalFeatures]) -> tuple[list[str], list[str]]:
    ids = sorted(features)
    pairs = [(a, b) for place, a in enumerate(ids) for b in ids[place + 1 :]]
    return [a for a, _ in pairs], [b for _, b in pairs]


def likeness(first: list[str], second: list[str]) -> NDArray[np.float64]:
    """Cosines as a reduction leaves them: higher for neighbours, below zero for nearly all."""
    apart = np.array([abs(int(a[1:]) - int(b[1:])) for a, b in zip(first, second, strict=True)])
    return 0.02 - 0.05 * apart


def evidence_of(features: dict[str, LocalFeatures]) -> Evidence:
    return Evidence(features.__getitem__, KIND.nearest, 4.0, WIDTH)


@pytest.mark.parametrize("count", [6, 12])
def test_all_of_a_small_collection_are_tried_however_far_below_zero_its_cosines(count: int) -> None:
    features = street("a", [3.0 * step for step in range(count)])
    first, second = every_pair(features)
    cosines = likeness(first, second)
    assert (cosines < 0).all()
    evidence = evidence_of(features)
    chosen = [trial_images(first, second, cosines + by, evidence) for by in (0.0, -5.0, 5.0)]
    assert chosen[0] == chosen[1] == chosen[2] == sorted(features)


def test_of_many_images_as_many_as_a_trial_takes_are_chosen_and_they_are_connected() -> None:
    features = street("a", [2.5 * step for step in range(20)])
    first, second = every_pair(features)
    evidence = evidence_of(features)
    chosen = trial_images(first, second, likeness(first, second), evidence)
    assert len(chosen) == 12
    linked = {pair for pair in evidence.matches if evidence.inliers(*pair) and {*pair} <= {*chosen}}
    reached = {chosen[0]}
    for _ in chosen:
        reached |= {image for pair in linked if reached & {*pair} for image in pair}
    assert reached == set(chosen)


def test_the_most_alike_that_share_nothing_are_not_tried() -> None:
    here = street("a", [3.0 * step for step in range(5)])
    there = street("b", [3.0 * step for step in range(3)], seed=7)
    features = {**here, **there}
    first, second = every_pair(features)
    across = np.array([a[0] != b[0] for a, b in zip(first, second, strict=True)])
    cosines = np.where(across, 0.9, likeness(first, second))
    assert trial_images(first, second, cosines, evidence_of(features)) == sorted(here)


def test_a_pair_apart_does_not_end_the_search_for_a_street() -> None:
    pair = street("b", [0.0, 0.5], seed=7)
    features = {**street("a", [4.0 * step for step in range(6)]), **pair}
    first, second = every_pair(features)
    cosines = likeness(first, second)
    cosines[[{a, b} == set(pair) for a, b in zip(first, second, strict=True)]] = 0.9
    chosen = trial_images(first, second, cosines, evidence_of(features))
    assert chosen == [name for name in sorted(features) if name.startswith("a")]


def test_of_a_car_that_stands_one_picture_is_taken() -> None:
    moving = street("a", [3.0 * step for step in range(5)])
    still = {f"a{number:02d}": moving["a02"] for number in (40, 41, 42)}
    features = {**moving, **still}
    first, second = every_pair(features)
    chosen = trial_images(first, second, likeness(first, second), evidence_of(features))
    assert len(chosen) == 5
    assert len({*chosen} & {"a02", *still}) == 1


def test_no_pair_gives_no_image() -> None:
    assert trial_images([], [], np.zeros(0), evidence_of({})) == []
    far = {**street("a", [0.0]), **street("b", [0.0], seed=3)}
    assert trial_images(*every_pair(far), np.array([0.9]), evidence_of(far)) == []


@pytest.mark.slow
@pytest.mark.parametrize("count", [6, 12])
@pytest.mark.parametrize("focal_px", [330.0, None])
def test_a_fisheye_is_known_on_few_images_whose_cosines_are_negative(
    count: int, focal_px: float | None
) -> None:
    features = street("a", [2.5 * step for step in range(count)], FISHEYE)
    first, second = every_pair(features)
    initial = initial_camera(WIDTH, HEIGHT, focal_px)
    choice = choose_camera(
        initial, first, second, likeness(first, second), features.__getitem__, KIND.nearest
    )
    assert choice.failure is None
    assert choice.images == count
    assert "FISHEYE" in choice.camera.model
    assert choice.camera.focal_px == pytest.approx(330.0, rel=0.1)
