"""Pairs between drives that are tried again by features of a second kind."""

from __future__ import annotations

import numpy as np
import pytest

from tests.mapping.test_two_view import CAMERA, scene
from vladmap.features.base import LocalFeatures
from vladmap.features.nearest import RatioTest
from vladmap.features.registry import feature_kind
from vladmap.mapping import second_views
from vladmap.mapping.second_views import (
    SecondKind,
    between_drives,
    second_view,
)
from vladmap.mapping.two_view import TwoView

SECOND = SecondKind(feature_kind("sift"), RatioTest())


def found(inliers: int, configuration: str = "CALIBRATED") -> TwoView:
    rows = np.column_stack([np.arange(inliers), np.arange(inliers)]).astype(np.uint32)
    return TwoView("a", "b", configuration, rows, rows)


def look(view: TwoView, a: LocalFeatures, b: LocalFeatures) -> TwoView:
    return second_view(view, (70, 900), a, b, SECOND, CAMERA, CAMERA)


def test_the_second_kind_holds_a_pair_and_its_rows_count_on_behind_the_first() -> None:
    a, b, _ = scene(np.random.default_rng(2))
    view = look(found(0, "DEGENERATE"), a, b)
    assert view.verified
    assert len(view.inliers) > 150
    # The scene has row k of one image as row k of the other.
    assert np.array_equal(
        view.inliers - np.array([70, 900]), np.repeat(view.inliers[:, :1], 2, 1) - 70
    )
    assert np.array_equal(view.matches[:, 0] - 70, view.matches[:, 1] - 900)
    assert view.translation is not None
    assert view.translation == pytest.approx([-1, 0, 0], abs=0.05)


def test_matches_that_two_other_streets_could_give_do_not_hold_a_pair() -> None:
    """One hundred inliers, and 85 % of the matches: half of either is refused."""
    failed = found(0, "DEGENERATE")
    rng = np.random.default_rng(3)
    a, b, _ = scene(rng, count=90)
    assert look(failed, a, b) is failed
    a, b, _ = scene(rng, count=400)
    moved = b.keypoints.copy()
    moved[:120, :2] = rng.uniform((0, 0), (640, 480), (120, 2))
    assert look(failed, a, LocalFeatures(moved, b.descriptors)) is failed


def test_only_the_most_reliable_features_go_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time grows with the product of their numbers."""
    monkeypatch.setattr(second_views, "_MOST_FEATURES", 150)
    a, b, _ = scene(np.random.default_rng(2), count=400)
    view = look(found(0, "DEGENERATE"), a, b)
    assert view.verified
    assert len(view.matches) <= 150


@pytest.mark.parametrize(
    ("drives", "metres", "near", "expected"),
    [
        (("x", "y"), 4.0, True, True),
        (("x", "y"), None, False, True),  # nobody knows how far apart they are
        (("x", "y"), 900.0, False, False),  # alike, but GPS says that they are elsewhere
        (("x", "x"), 4.0, True, False),
        (("x", None), 4.0, True, False),
    ],
)
def test_pairs_of_two_drives_are_tried_again_where_gps_does_not_tell_them_apart(
    drives: tuple[str, str | None], metres: float | None, near: bool, expected: bool
) -> None:
    assert between_drives(*drives, metres, near) is expected
