"""Depths, lengths and rotations, each against values known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.mapping.view_graph.street import street
from vladmap.mapping.view_graph.depths import DepthRatios, depth_ratios, pair_depths
from vladmap.mapping.view_graph.lengths import relative_lengths
from vladmap.mapping.view_graph.rotations import average_rotations


def test_depths_times_the_true_distance_are_those_of_the_scene() -> None:
    there = street(8)
    view = there.view(2, 4)
    pairs = there.matched([view])
    depths = pair_depths(pairs, pairs.rotation, pairs.direction)
    distance = np.linalg.norm(there.centre[4] - there.centre[2])
    points = there.points[there.seen[2][view.inliers[:, 0]]]
    true = ((points - there.centre[2]) @ there.rotation[2].T)[:, 2]
    used = depths.usable
    assert used.sum() > 50
    np.testing.assert_allclose(depths.first[used] * distance, true[used], rtol=1e-6)


def test_the_ratio_of_depths_is_the_inverse_ratio_of_lengths() -> None:
    """Pairs (2, 3) and (2, 4) share the keypoints of 2: four metres and eight."""
    there = street(8)
    pairs = there.matched([there.view(2, 3), there.view(2, 4)])
    ratios = depth_ratios(pairs, pair_depths(pairs, pairs.rotation, pairs.direction), 8)
    assert (ratios.one.tolist(), ratios.other.tolist()) == ([0], [1])
    lengths = [np.linalg.norm(there.centre[k] - there.centre[2]) for k in (3, 4)]
    assert np.exp(ratios.log_ratio[0]) == pytest.approx(lengths[1] / lengths[0], rel=1e-6)


def test_lengths_are_found_among_a_tenth_of_wrong_ratios() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=60)
    one, other = (rng.integers(0, 60, 900) for _ in range(2))
    keep = one != other
    one, other = one[keep], other[keep]
    ratio = true[other] - true[one] + 0.02 * rng.normal(size=len(one))
    wrong = rng.random(len(one)) < 0.1
    ratio[wrong] += rng.choice([-2.0, 2.0], wrong.sum())
    many = np.full(len(one), 30)
    log_length, component = relative_lengths(
        60, DepthRatios(one, other, ratio, np.full(len(one), 0.1), many)
    )
    assert (component == 0).all()
    off = log_length - true
    assert np.abs(off - np.median(off)).max() < 0.03


def test_pairs_that_share_no_keypoint_have_no_common_unit() -> None:
    none = np.zeros(0)
    empty = DepthRatios(none.astype(int), none.astype(int), none, none, none.astype(int))
    assert relative_lengths(3, empty)[1].tolist() == [0, 1, 2]


def test_rotations_are_found_among_a_fifth_of_wrong_pairs() -> None:
    rng = np.random.default_rng(1)
    true = Rotation.random(25, random_state=2).as_matrix()
    first, second = np.triu_indices(25, 1)
    relative = true[second] @ true[first].transpose(0, 2, 1)
    wrong = rng.random(len(first)) < 0.2
    relative[wrong] = Rotation.random(int(wrong.sum()), random_state=3).as_matrix()
    # Wrong pairs have fewer inliers, as they have in truth: the first tree is of true ones.
    inliers = np.where(wrong, 20.0, 100.0)
    found, component = average_rotations(25, first, second, relative, inliers)
    assert (component == 0).all()
    apart = found.transpose(0, 2, 1) @ true
    error = Rotation.from_matrix(apart @ apart[0].T).magnitude()
    assert np.degrees(error).max() < 0.1
