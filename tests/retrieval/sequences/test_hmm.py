"""Viterbi against all ways there are, in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.retrieval.sequences.drives import descriptors, seen_again
from vladmap.retrieval.sequences import hmm
from vladmap.retrieval.sequences.evidence import Likelihood, Standardised
from vladmap.retrieval.sequences.hmm import NOWHERE, Transitions, most_likely_way
from vladmap.retrieval.sequences.moves import moves
from vladmap.retrieval.sequences.recordings import Recordings

TWO = Recordings.of(["a"] * 3 + ["b"] * 2)
STREETS = np.array([[0, 0, 0], [5, 0, 0], [10, 0, 0], [10, 4, 0], [10, 9, 0]], np.float64)


def table(transitions: Transitions, count: int) -> NDArray[np.float64]:
    """(N + 1, N + 1) log-probabilities from a state to the next; the last is nowhere."""
    stay, enter, leave, remain = transitions.borders()
    out = np.full((count + 1, count + 1), -np.inf)
    for target in range(count):
        for source, log in zip(transitions.source[:, target], transitions.log[:, target],
                               strict=True):  # fmt: skip
            if source < count:
                out[source, target] = log + stay
    out[:count, count], out[count, :count], out[count, count] = enter, leave, remain
    return out


def brute_force(
    likelihood: NDArray[np.float32], steps: NDArray[np.float64]
) -> tuple[list[int], NDArray[np.float64]]:
    """The best of all ways, and for each photograph and state the best way through it."""
    frames, count = likelihood.shape
    seen = np.concatenate([likelihood.astype(np.float64), np.zeros((frames, 1))], axis=1)
    begin = np.append(np.full(count, np.log(0.5 / count)), np.log(0.5))
    through = np.full((frames, count + 1), -np.inf)
    best, top = None, -np.inf
    for way in itertools.product(range(count + 1), repeat=frames):
        value = begin[way[0]] + sum(seen[t, state] for t, state in enumerate(way))
        value += sum(steps[a, b] for a, b in itertools.pairwise(way))
        for t, state in enumerate(way):
            through[t, state] = max(through[t, state], value)
        if value > top:
            best, top = list(way), value
    assert best is not None
    return [NOWHERE if state == count else state for state in best], through - top


@pytest.mark.parametrize("seed", range(4))
def test_the_way_is_the_best_of_all_ways(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hmm, "_PASSES", 1)
    rng = np.random.default_rng(seed)
    likelihood = rng.normal(0, 2.0, (5, 5)).astype(np.float32)
    likelihood[2, 1] = -np.inf  # not among the nearest
    likelihood[3] = 0  # a black frame
    reach = moves(TWO, STREETS, 8.0)
    way = most_likely_way(likelihood, reach)
    rows, through = brute_force(likelihood, table(Transitions(reach), 5))
    assert way.rows.tolist() == rows
    assert np.array_equal(np.isinf(way.best), np.isinf(through[:, :5]))
    known = np.isfinite(through[:, :5])
    assert np.abs(way.best[known] - through[:, :5][known]).max() < 1e-5
    assert np.abs(way.outside - through[:, 5]).max() < 1e-5


@pytest.mark.parametrize("seed", range(3))
def test_causal_ways_are_the_best_of_those_that_end_at_the_photograph(seed: int) -> None:
    likelihood = np.random.default_rng(seed).normal(0, 2.0, (5, 5)).astype(np.float32)
    reach = moves(TWO, STREETS, 8.0)
    way = most_likely_way(likelihood, reach, causal=True)
    steps = table(Transitions(reach), 5)
    for frame in range(5):
        rows, through = brute_force(likelihood[: frame + 1], steps)
        assert way.rows[frame] == rows[-1]
        assert np.abs(way.best[frame] - through[-1, :5]).max() < 1e-5


def test_moves_are_all_there_is_but_at_an_end_where_some_lead_off_the_map() -> None:
    steps = table(Transitions(moves(Recordings.one(40), None, 5)), 40)[:40, :40]
    total = np.exp(steps).sum(axis=1)
    assert np.allclose(total[5:-5], 1 - hmm.ENTER)
    assert total[-1] < 0.7


def test_moves_are_in_metres_both_ways_and_cross_where_streets_meet() -> None:
    found = moves(TWO, STREETS, 8.0)
    lengths = dict(
        zip(zip(found.source.tolist(), found.target.tolist(), strict=True), found.length,
            strict=True)
    )  # fmt: skip
    assert lengths[0, 0] == 0
    assert lengths[0, 1] == 5
    assert lengths[1, 0] == -5
    assert (0, 2) not in lengths  # 10 m
    assert lengths[2, 3] == lengths[3, 2] == 4  # from one street to the other
    assert lengths[1, 3] == pytest.approx(np.hypot(5, 4))  # 6.4 m apart: joined as they are
    assert lengths[4, 3] == -5
    assert (0, 4) not in lengths
    assert {row for row, target in lengths if row == target} == set(range(5))


def test_frames_count_where_there_are_no_positions_and_recordings_are_not_joined() -> None:
    found = moves(Recordings.of(["a"] * 3 + ["b"] * 2), None, 2)
    pairs = set(zip(found.source.tolist(), found.target.tolist(), strict=True))
    assert pairs == {(a, b) for a in range(3) for b in range(3)} | {
        (a, b) for a in (3, 4) for b in (3, 4)
    }
    among = found.among(np.array([0, 2, 3]))
    assert list(zip(among.source, among.target, among.length, strict=True)) == [
        (0, 0, 0), (1, 0, -2), (0, 1, 2), (1, 1, 0), (2, 2, 0),
    ]  # fmt: skip


def test_a_car_that_stands_has_a_bounded_number_of_moves() -> None:
    found = moves(Recordings.one(500), np.zeros((500, 3)), 25.0)
    assert np.bincount(found.source).max() <= 2 * 64 + 1


def test_a_drive_with_stops_a_way_back_and_a_part_elsewhere_is_found() -> None:
    database = descriptors(400, 1, 64)
    there = np.concatenate([
        np.arange(50, 120), np.full(15, 119), np.arange(119, 260, 2), np.arange(259, 220, -1),
    ])  # fmt: skip
    elsewhere = descriptors(60, 99, 64)
    queries = np.concatenate([seen_again(database[there], 2.0, 5), elsewhere])
    queries[10:14] = 0  # a tunnel
    likelihood = -np.nan_to_num(
        Likelihood(Standardised(queries, database)).block(0, len(queries)), nan=0.0
    )
    way = most_likely_way(likelihood, moves(Recordings.one(400), None, 5))
    off = np.abs(way.rows[: len(there)] - there)
    assert (off <= 1).mean() > 0.97
    assert (way.rows[len(there) + 3 :] == NOWHERE).mean() > 0.95
    single = likelihood[: len(there)].argmax(axis=1)
    assert (np.abs(single - there) <= 1).mean() < 0.9
