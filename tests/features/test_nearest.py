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
