"""Judging pairs: streets whose every place is known, and pairs that are false by construction."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from scipy.spatial.transform import Rotation

from vladmap.mapping.filled_positions import fill_positions
from vladmap.mapping.judging import (
    ALIKE,
    DEPTH,
    FAR,
    KEPT,
    MISFIT,
    TURNED,
    Judgement,
    judge,
    judge_by_fits,
)
from vladmap.mapping.photographs import Pairs, Photographs
from vladmap.mapping.view_graph.table import FITS

SIGMA = 3.0
STEP = 3.0


class Street:
    """Drives along one straight street, a photograph every 3 m, facing along it.

    True pairs join photographs at most 10 m apart; inliers fall with the distance.
    """

    def __init__(self, drives: int = 2, count: int = 60, noise: float = SIGMA) -> None:
        rng = np.random.default_rng(1)
        along = np.tile(np.arange(count) * STEP, drives)
        self.place = np.stack([along, np.repeat(np.arange(drives), count) * 2.0, 0 * along], 1)
        self.sequence = np.repeat(np.arange(drives), count)
        self.index = np.tile(np.arange(count), drives)
        self.gps = self.place + rng.normal(0, noise, self.place.shape) * [1, 1, 0]
        self.heading = Rotation.from_rotvec(rng.uniform(-0.3, 0.3, (len(along), 1)) * [0, 0, 1])
        a, b = np.triu_indices(len(along), 1)
        apart = np.linalg.norm(self.place[a] - self.place[b], axis=1)
        near = apart <= 10.0
        self.pairs = [(int(i), int(j), 200 - 10 * int(d)) for i, j, d in zip(
            a[near], b[near], apart[near], strict=True)]  # fmt: skip
        self.wrong_turn: set[tuple[int, int]] = set()

    def judge(self, extra: list[tuple[int, int, int]] | None = None) -> Judgement:
        pairs = [*self.pairs, *(extra or [])]
        first, second, inliers = np.array(pairs).T
        turn = self.heading[second] * self.heading[first].inv()
        bad = [(a, b) in self.wrong_turn for a, b, _ in pairs]
        turn = Rotation.from_rotvec(np.outer(bad, [0.0, 0.0, 1.0])) * turn
        rotation = turn.as_quat()[:, [3, 0, 1, 2]]
        return judge(
            Photographs(
                self.gps, np.full(len(self.gps), SIGMA), self.sequence, self.index
            ),
            Pairs(first, second, inliers.astype(float), rotation),
        )  # fmt: skip


def test_true_pairs_of_a_street_are_kept() -> None:
    judged = Street().judge()
    assert (judged.verdict == KEPT).mean() > 0.995


def test_a_pair_of_two_places_far_apart_is_dropped() -> None:
    """Issue 19, 0: on the whole graph no third photograph confirms it."""
    street = Street()
    judged = street.judge([(5, 50, 300), (10, 60 + 45, 20)])
    assert judged.verdict[-2:].tolist() == [FAR, FAR]


def test_a_street_shifted_by_twenty_metres_keeps_its_pairs_with_the_others() -> None:
    """Issue 19, 0: what a drive's GPS shares is found from the pairs, not held against them."""
    for shift in ([0.0, 20.0, 0.0], [20.0, 0.0, 0.0]):
        street = Street(drives=3)
        street.gps[street.sequence == 2] += shift
        judged = street.judge([(5, 50, 300)])
        assert (judged.verdict[:-1] == KEPT).mean() > 0.99
        assert judged.verdict[-1] == FAR
        apart = judged.offset[street.sequence == 2].mean(axis=0)
        apart -= judged.offset[street.sequence < 2].mean(axis=0)
        np.testing.assert_allclose(apart, shift, atol=4.0)


def test_half_a_street_shifted_is_judged_by_its_own_offset() -> None:
    street = Street(drives=3, count=120)
    moved = (street.sequence == 2) & (street.index >= 60)
    street.gps[moved] += [0.0, 20.0, 0.0]
    judged = street.judge()
    assert (judged.verdict == KEPT).mean() > 0.99


def test_many_false_pairs_do_not_pull_two_streets_together() -> None:
    # A parallel street 40 m away, and each of its photographs paired with its twin: as many false
    # pairs across as an alias of every facade gives.
    street = Street(drives=2)
    away = street.sequence == 1
    street.place[away] += [0.0, 40.0, 0.0]
    street.gps[away] += [0.0, 40.0, 0.0]
    across = [
        (a, b, n) for a, b, n in street.pairs if street.sequence[a] != street.sequence[b]
    ]  # fmt: skip
    street.pairs = [pair for pair in street.pairs if pair not in across]
    street.pairs += [(a, b, n) for a, b, n in across if a + 60 == b]
    judged = street.judge()
    false = np.array([b - a == 60 for a, b, _ in street.pairs])
    assert (judged.verdict[~false] == KEPT).mean() > 0.99
    assert (judged.verdict[false] != KEPT).all()


def test_neighbours_of_a_sequence_are_kept_however_far_apart() -> None:
    street = Street(drives=1, noise=0.0)
    street.gps = street.gps * 20  # a photograph every 60 m
    assert (street.judge().verdict == KEPT).all()


def test_a_far_pair_that_those_between_confirm_is_kept_and_one_too_alike_is_not() -> None:
    street = Street(noise=0.5)
    # 30 m along the street; both drives' photographs half way see both ends.
    seen = [(20, 25, 60), (25, 30, 60), (20, 85, 60), (30, 85, 60)]
    street.gps[:] = street.place
    assert street.judge([*seen, (20, 30, 30)]).verdict[-1] == KEPT
    assert street.judge([*seen, (20, 30, 500)]).verdict[-1] == ALIKE


def test_photographs_far_between_are_believed_about_those_in_sight() -> None:
    # A square: six photographs 40 m from each other, of which no three are near one another.
    street = Street(drives=1, count=6, noise=0.0)
    street.sequence[:] = -1
    street.gps[:, 0] = np.arange(6) * 40.0
    street.pairs = [(a, a + 1, 50) for a in range(5)]
    judged = street.judge([(0, 5, 50)])
    assert judged.verdict.tolist() == [KEPT] * 5 + [FAR]


def test_a_pair_turned_against_all_that_see_both_is_dropped() -> None:
    street = Street()
    a, b, _ = next(pair for pair in street.pairs if pair[0] == 20 and pair[1] >= 60)
    street.wrong_turn = {(a, b)}
    judged = street.judge()
    at = [pair[:2] for pair in street.pairs].index((a, b))
    assert judged.verdict[at] == TURNED
    assert (judged.verdict == KEPT).sum() >= 0.99 * len(judged.verdict)


def test_a_photograph_without_gps_is_judged_by_its_sequence() -> None:
    street = Street()
    street.gps[10] = np.nan
    judged = street.judge([(10, 55, 300)])
    assert judged.verdict[-1] == FAR
    np.testing.assert_allclose(judged.position[10], street.place[10], atol=8)


def test_a_photograph_without_gps_and_sequence_lies_where_its_partners_are() -> None:
    street = Street()
    street.gps[10], street.sequence[10] = np.nan, -1
    judged = street.judge([(10, 55, 300)])
    assert judged.verdict[-1] == FAR
    np.testing.assert_allclose(judged.position[10], street.place[10], atol=15)


def test_one_position_in_another_town_does_not_cost_a_photograph_its_pairs() -> None:
    street = Street()
    street.gps[10] += [500.0, 0.0, 0.0]
    judged = street.judge()
    assert (judged.verdict == KEPT).mean() > 0.99


def test_without_any_position_pairs_are_judged_by_rotations_alone() -> None:
    street = Street()
    street.gps[:] = np.nan
    judged = street.judge([(5, 50, 300)])
    assert (judged.verdict == KEPT).all()
    assert np.isnan(judged.distance).all()


def test_pairs_without_rotations_and_no_pairs_at_all_are_no_error() -> None:
    street = Street()
    nothing = Pairs(np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros((0, 4)))
    photographs = Photographs(
        street.gps, np.full(len(street.gps), SIGMA), street.sequence, street.index
    )
    assert len(judge(photographs, nothing).verdict) == 0
    first, second, inliers = np.array(street.pairs).T
    unknown = Pairs(first, second, inliers.astype(float), np.full((len(first), 4), np.nan))
    assert (judge(photographs, unknown).verdict == KEPT).mean() > 0.99


def test_positions_are_filled_in_along_a_sequence_and_not_across_two() -> None:
    position = np.array([[0.0, 0, 0], [np.nan] * 3, [20.0, 0, 0], [np.nan] * 3, [900.0, 0, 0]])
    sequence, index = np.array([0, 0, 0, 1, -1]), np.array([0, 1, 4, 0, 0])
    filled, sigma = fill_positions(Photographs(position, np.full(5, 2.0), sequence, index))
    np.testing.assert_allclose(filled[1], [5.0, 0, 0])
    assert sigma[1] > 2.0
    assert np.isnan(filled[3]).all()
    np.testing.assert_array_equal(filled[[0, 2, 4]], position[[0, 2, 4]])


def test_the_pose_graph_overrules_other_evidence_on_the_pairs_that_it_holds() -> None:
    """Of three pairs that GPS would keep one lies off its lines, one has impossible depths."""
    ids = pa.array(["a", "b", "c", "d"])
    pairs = Pairs(
        np.array([0, 0, 1, 2]), np.array([1, 2, 2, 3]), np.full(4, 50.0), np.full((4, 4), np.nan)
    )
    unknown = np.full((4, 3), np.nan)
    before = Judgement(
        np.array([KEPT, KEPT, FAR, FAR], np.int8), np.zeros(4), np.zeros(4), unknown, unknown
    )
    fits = pa.Table.from_pylist(
        [
            {"image_id_a": a, "image_id_b": b, "probability": p, "fit_share": share}
            for a, b, p, share in (
                ("a", "b", 0.2, 0.3),
                ("a", "c", 0.4, 0.9),
                ("b", "c", 0.97, 0.9),
            )
        ],
        schema=FITS,
    )
    after = judge_by_fits(before, pairs, ids, fits)
    assert after.verdict.tolist() == [MISFIT, DEPTH, KEPT, FAR]
    assert before.verdict.tolist() == [KEPT, KEPT, FAR, FAR]
