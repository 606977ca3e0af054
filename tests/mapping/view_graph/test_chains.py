"""Drives along rows of equal houses are not folded by the pairs that match each to the next."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tests.mapping.view_graph.street import Street, street
from tests.mapping.view_graph.test_solve import shape_errors_m
from vladmap.mapping.arrays import Bools
from vladmap.mapping.two_view import TwoView
from vladmap.mapping.view_graph.chains import against_chains
from vladmap.mapping.view_graph.fit import fit_pairs
from vladmap.mapping.view_graph.frames import Baselines
from vladmap.mapping.view_graph.solve import solve_pose_graph
from vladmap.mapping.view_graph.table import BELIEVED

PHOTOGRAPHS = 40
# In the row of equal houses a drive matches each house to itself only up to NEAR places.
ROW = range(10, 30)
NEAR, FAR = 2, 12


def aliased_views(there: Street) -> tuple[list[TwoView], Bools]:
    """Pairs of a street of drives, sorted, and which of them are one house off.

    Outside of the row all pairs up to four steps apart are true. In the row those up to two steps
    apart are; of all others up to twelve steps apart, both photographs of one drive, the one takes
    each house for the next of the other.
    """
    views, wrong = [], []
    for a, b in combinations(range(len(there.ids)), 2):
        places = int(there.index[b] - there.index[a])
        inside = all(there.index[end] in ROW for end in (a, b))
        alias = inside and places > NEAR and there.drive[a] == there.drive[b]
        # Six steps are a house: that alias has no baseline.
        if abs(places) > (FAR if alias else NEAR if inside else 4) or (alias and places == 6):
            continue
        view = there.alias(a, b, 1) if alias else there.view(a, b)
        if len(view.inliers) >= 30:
            views.append(view)
            wrong.append(alias)
    return views, np.array(wrong)


def line(count: int, reach: int, step: float = 3.0) -> Baselines:
    """All pairs of `count` photographs in a row, up to `reach` places apart."""
    first, second = np.triu_indices(count, 1)
    near = second - first <= reach
    first, second = first[near], second[near]
    vector = (second - first)[:, None] * np.array([0.0, step, 0.0])
    return Baselines(first, second, vector)


def test_pairs_a_house_off_contradict_the_shorter_ones_though_they_are_the_more() -> None:
    """From three places on each pair is 10.7 m short: 57 of 94 agree with each other."""
    pairs = line(20, 5)
    wrong = pairs.second - pairs.first >= 3
    assert wrong.sum() > (~wrong).sum()
    vector = pairs.vector - np.where(wrong[:, None], [0.0, 10.7, 0.0], 0.0)
    seen = Baselines(pairs.first, pairs.second, vector)
    against = against_chains(seen, np.zeros(20, int), np.arange(20))
    assert np.array_equal(against, wrong)


def test_noise_and_drift_contradict_nothing() -> None:
    rng = np.random.default_rng(1)
    pairs = line(60, 10)
    length = np.linalg.norm(pairs.vector, axis=1, keepdims=True)
    vector = pairs.vector * 1.05 + 0.03 * length * rng.normal(size=pairs.vector.shape)
    seen = Baselines(pairs.first, pairs.second, vector)
    assert not against_chains(seen, np.zeros(60, int), np.arange(60)).any()


def test_pairs_that_no_shorter_ones_connect_contradict_nothing() -> None:
    """Of two drives, of no drive, or across a gap in the drive."""
    pairs = line(20, 5)
    wrong = pairs.second - pairs.first >= 3
    vector = pairs.vector - np.where(wrong[:, None], [0.0, 10.7, 0.0], 0.0)
    seen = Baselines(pairs.first, pairs.second, vector)
    assert not against_chains(seen, np.full(20, -1), np.arange(20)).any()
    # Two photographs of each drive, then two of the next: no pair has three in its drive.
    assert not against_chains(seen, np.arange(20), np.zeros(20, int)).any()
    across = seen.only(np.flatnonzero((seen.first < 10) == (seen.second < 10)))
    bridge = Baselines(
        np.append(across.first, 5), np.append(across.second, 14),
        np.vstack([across.vector, [[0.0, 16.3, 0.0]]]),
    )  # fmt: skip
    against = against_chains(bridge, np.zeros(20, int), np.arange(20))
    assert not against[-1]
    assert against[:-1].sum() == (across.second - across.first >= 3).sum()


@pytest.mark.medium
@pytest.mark.parametrize("gps", [True, False])
def test_two_drives_along_equal_houses_are_not_folded_and_pairs_a_house_off_not_believed(
    gps: bool,
) -> None:
    """222 of the 390 pairs in the row are a house of 24 m off, and agree with each other."""
    there = street(PHOTOGRAPHS, drives=2, straight=True)
    views, wrong = aliased_views(there)
    inside = [all(there.index[int(end)] in ROW for end in ends_of(view)) for view in views]
    assert wrong.sum() > np.sum(inside) / 2
    pairs = there.matched(views)
    graph = solve_pose_graph(there.located(noise_m=3.0, seed=2, known=gps), pairs)
    assert shape_errors_m(there, graph).max() < 1.5
    fit = fit_pairs(pairs, graph.rotation, graph.position)
    believed = fit.probability(pairs.inliers) >= BELIEVED
    assert not believed[wrong].any()
    assert believed[~wrong].mean() > 0.95
    assert fit.placed[wrong].mean() < 0.2
    assert np.median(fit.placed[~wrong]) > 0.95


def ends_of(view: TwoView) -> tuple[str, str]:
    return view.image_id_a, view.image_id_b
