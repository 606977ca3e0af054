from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vladmap.features.base import LocalFeatures
from vladmap.features.colmap import pycolmap
from vladmap.features.nearest import RatioTest
from vladmap.mapping.camera import Camera
from vladmap.mapping.two_view import (
    TwoView,
    fundamental_inliers,
    inlier_counts,
    to_colmap_geometry,
    two_view_table,
    two_views_of,
    verify,
)
from vladmap.schemas.tables import TWO_VIEWS

CAMERA = Camera("SIMPLE_PINHOLE", 640, 480, (500.0, 320.0, 240.0), True)


def root_sift(rng: np.random.Generator, count: int) -> np.ndarray:
    raw = rng.exponential(1.0, (count, 128))
    unit = np.sqrt(raw / raw.sum(axis=1, keepdims=True))
    return np.round(unit * 512).clip(0, 255).astype(np.uint8)


def at(points: np.ndarray, descriptors: np.ndarray) -> LocalFeatures:
    keypoints = np.zeros((len(points), 4), np.float32)
    keypoints[:, :2] = points
    return LocalFeatures(keypoints, descriptors)


def scene(
    rng: np.random.Generator, count: int = 200, noise: float = 0.3
) -> tuple[LocalFeatures, LocalFeatures, np.ndarray]:
    """Two views of random points, the second camera one metre to the right of the first."""
    world = np.column_stack(
        [rng.uniform(-4, 4, count), rng.uniform(-3, 3, count), rng.uniform(6, 20, count)]
    )

    def project(points: np.ndarray) -> np.ndarray:
        pixels = 500.0 * points[:, :2] / points[:, 2:] + [320.0, 240.0]
        return pixels + rng.normal(0, noise, pixels.shape)

    descriptors = root_sift(rng, count)
    a, b = at(project(world), descriptors), at(project(world - [1.0, 0, 0]), descriptors)
    return a, b, np.column_stack([np.arange(count), np.arange(count)]).astype(np.uint32)


def test_verification_recovers_the_motion_and_drops_wrong_matches() -> None:
    a, b, right = scene(np.random.default_rng(2))
    wrong = np.column_stack([np.arange(60), np.arange(60)[::-1] + 100]).astype(np.uint32)
    view = verify("a", "b", a, b, np.concatenate([right, wrong]), CAMERA, CAMERA)
    assert view.verified
    assert view.configuration == "CALIBRATED"
    assert view.rotation is not None
    assert view.translation is not None
    assert view.rotation[0] > np.cos(np.radians(1.0) / 2)
    assert abs(view.translation @ [-1.0, 0.0, 0.0]) > np.cos(np.radians(3.0))
    same = view.inliers[:, 0] == view.inliers[:, 1]
    assert same.sum() > 190
    assert same.mean() > 0.95


def test_matches_of_which_most_are_wrong_are_degenerate_where_a_share_must_be_right() -> None:
    rng = np.random.default_rng(1)
    a, b, matches = scene(rng, 300)
    for right, verified in ((200, True), (90, False)):
        order = np.arange(300)
        order[right:] = rng.permutation(order[right:])
        mixed = np.column_stack([matches[:, 0], order]).astype(np.uint32)
        assert verify("a", "b", a, b, mixed, CAMERA, CAMERA).verified, "whatever the share"
        view = verify("a", "b", a, b, mixed, CAMERA, CAMERA, min_inlier_share=0.4)
        assert view.verified == verified


def test_too_few_matches_are_degenerate() -> None:
    a, b, right = scene(np.random.default_rng(3))
    view = verify("a", "b", a, b, right[:14], CAMERA, CAMERA)
    assert (view.configuration, view.verified, len(view.inliers)) == ("DEGENERATE", False, 0)


def test_verification_is_the_same_in_every_thread() -> None:
    a, b, right = scene(np.random.default_rng(4), noise=1.0)
    rng = np.random.default_rng(5)
    wrong = rng.integers(0, 200, (150, 2)).astype(np.uint32)
    matches = np.concatenate([right, wrong])
    with ThreadPoolExecutor(4) as pool:
        views = list(pool.map(lambda _: verify("a", "b", a, b, matches, CAMERA, CAMERA), range(12)))
    for view in views[1:]:
        np.testing.assert_array_equal(view.inliers, views[0].inliers)
        np.testing.assert_array_equal(view.essential, views[0].essential)


def test_ids_must_be_in_order() -> None:
    a, b, right = scene(np.random.default_rng(6))
    with pytest.raises(ValueError, match="less"):
        verify("b", "a", a, b, right, CAMERA, CAMERA)


def test_the_table_keeps_everything_and_sorts() -> None:
    a, b, right = scene(np.random.default_rng(7))
    good = verify("b", "c", a, b, right, CAMERA, CAMERA)
    poor = verify("a", "z", a, b, right[:3], CAMERA, CAMERA)
    table = two_view_table([good, poor])
    assert table.schema.equals(TWO_VIEWS, check_metadata=True)
    table.validate(full=True)
    assert table["image_id_a"].to_pylist() == ["a", "b"]
    assert inlier_counts(table).tolist() == [0, len(good.inliers)]
    first, second = two_views_of(table)
    assert first.rotation is None
    assert first.configuration == "DEGENERATE"
    np.testing.assert_array_equal(first.matches, right[:3])
    for name in ("matches", "inliers", "fundamental", "essential", "rotation", "translation"):
        np.testing.assert_array_equal(getattr(second, name), getattr(good, name))
    # A slice reads as its own rows do.
    (sliced,) = two_views_of(table.slice(1, 1))
    np.testing.assert_array_equal(sliced.inliers, good.inliers)


def test_an_empty_table_has_the_schema() -> None:
    table = two_view_table([])
    assert table.schema.equals(TWO_VIEWS)
    assert list(two_views_of(table)) == []
    assert inlier_counts(table).shape == (0,)


def test_colmaps_form_has_the_same_pose() -> None:
    half = np.sqrt(0.5)
    view = TwoView(
        "a",
        "b",
        "CALIBRATED",
        np.zeros((1, 2), np.uint32),
        np.zeros((1, 2), np.uint32),
        rotation=np.array([half, 0.0, 0.0, half]),
        translation=np.array([0.0, 0.0, 1.0]),
    )
    geometry = to_colmap_geometry(view)
    assert geometry.config == pycolmap.TwoViewGeometryConfiguration.CALIBRATED
    quarter_turn = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    np.testing.assert_allclose(geometry.cam2_from_cam1.rotation.matrix(), quarter_turn, atol=1e-12)


def test_one_fundamental_matrix_explains_the_right_matches_and_few_wrong_ones() -> None:
    a, b, _ = scene(np.random.default_rng(8), count=120, noise=0.3)
    right = RatioTest().match(a, b)
    wrong = right[:60].copy()
    wrong[:, 1] = np.roll(wrong[:, 1], 7)
    assert fundamental_inliers(a, b, right, 3.0) >= 0.95 * len(right)
    together = fundamental_inliers(a, b, np.concatenate([right[60:], wrong]), 3.0)
    assert len(right) - 60 <= together + 3 <= len(right) - 60 + 25
    assert fundamental_inliers(a, b, wrong, 3.0) < 0.6 * len(wrong)
    assert fundamental_inliers(a, b, right[:7], 3.0) == 0
