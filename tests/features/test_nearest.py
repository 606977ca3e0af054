"""Mutual nearest neighbours: ratio test and least cosine."""

from __future__ import annotations

import numpy as np
import pytest

from tests.mapping.test_two_view import at, root_sift
from vladmap.features.nearest import MinCosine, RatioTest, rounded


def test_matches_undo_a_permutation() -> None:
    rng = np.random.default_rng(0)
    descriptors = root_sift(rng, 300)
    order = rng.permutation(300)
    points = np.zeros((300, 2))
    pairs = RatioTest().match(at(points, descriptors), at(points, descriptors[order]))
    assert pairs.dtype == np.uint32
    np.testing.assert_array_equal(pairs[:, 0], np.arange(300))
    np.testing.assert_array_equal(order[pairs[:, 1]], np.arange(300))


def test_an_ambiguous_descriptor_fails_the_ratio_test_from_either_side() -> None:
    rng = np.random.default_rng(1)
    descriptors = root_sift(rng, 20)
    doubled = np.concatenate([descriptors, descriptors[:5]])
    few, many = at(np.zeros((20, 2)), descriptors), at(np.zeros((25, 2)), doubled)
    np.testing.assert_array_equal(RatioTest().match(few, many)[:, 0], np.arange(5, 20))
    np.testing.assert_array_equal(RatioTest().match(many, few)[:, 1], np.arange(5, 20))


def test_ratio_matches_are_those_of_the_definition() -> None:
    """Mutual, within the angle, and apart from the second nearest from both sides; in float64."""
    rng = np.random.default_rng(2)
    some = root_sift(rng, 400)
    noisy = np.clip(some[:300] + rng.integers(-25, 26, (300, 128)), 0, 255).astype(np.uint8)
    other = np.concatenate([noisy, root_sift(rng, 100)])
    angle = np.arccos(np.clip(some.astype(float) @ other.T.astype(float) / 512**2, -1, 1))
    ordered, across = np.sort(angle, axis=1), np.sort(angle, axis=0)
    wanted = [
        [row, column]
        for row, column in enumerate(angle.argmin(axis=1))
        if angle[:, column].argmin() == row
        and angle[row, column] <= 0.7
        and angle[row, column] < 0.8 * min(ordered[row, 1], across[1, column])
    ]
    found = RatioTest().match(at(np.zeros((400, 2)), some), at(np.zeros((400, 2)), other))
    assert found.tolist() == wanted
    assert 20 < len(found) < 300


def test_learned_descriptors_need_a_cosine_above_the_threshold() -> None:
    a = np.eye(4, 64, dtype=np.float16)
    b = np.eye(4, 64, dtype=np.float16)
    b[3, 3], b[3, 10] = 0.5, 0.75
    pairs = MinCosine(0.82, 0.4).match(at(np.zeros((4, 2)), a), at(np.zeros((4, 2)), b))
    np.testing.assert_array_equal(pairs, [[0, 0], [1, 1], [2, 2]])


def test_rounding_to_1024ths_is_exact_in_float16() -> None:
    assert rounded(np.array([0.1, -0.5, 1.0], np.float32)).tolist() == [102 / 1024, -0.5, 1.0]


def test_kinds_do_not_mix() -> None:
    some = at(np.zeros((3, 2)), root_sift(np.random.default_rng(0), 3))
    learned = at(np.zeros((3, 2)), np.zeros((3, 64), np.float16))
    for matcher in (RatioTest(), MinCosine(0.82, 0.4)):
        with pytest.raises(ValueError, match="kinds"):
            matcher.match(some, learned)
