from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vladmap.retrieval.recall import (
    NEVER,
    Ranking,
    average_precision,
    distances,
    figures,
    precision_recall,
    rank,
    ratio_scores,
    reordered,
)


def directions(*degrees: float) -> NDArray[np.float32]:
    """Unit vectors in the plane: the nearer two angles, the larger their inner product."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def rows(*lists: list[int]) -> list[NDArray[np.int64]]:
    return [np.array(each, np.int64) for each in lists]


# Seen from 0 degrees the order is 0, 1, 2, 3; from 31 it is 3, 2, 1, 0; from 12 it is 1, 2, 0, 3.
DATABASE = directions(0, 10, 20, 40)
QUERIES = directions(0, 31, 12)


def test_order_and_places_of_positives_are_those_counted_by_hand() -> None:
    ranking = rank(QUERIES, DATABASE, rows([1, 3], [], [1]))
    assert ranking.rows.tolist() == [[0, 1, 2, 3], [3, 2, 1, 0], [1, 2, 0, 3]]
    assert ranking.query.tolist() == [0, 0, 2]
    assert ranking.rank.tolist() == [1, 3, 0]
    assert ranking.first().tolist() == [1, NEVER, 0]
    assert ranking.positives().tolist() == [2, 0, 1]
    assert ranking.best_positive().tolist() == [1, -1, 1]
    assert ranking.similarity[0] == pytest.approx(np.cos(np.radians([0, 10, 20, 40])), abs=1e-6)


def test_both_denominators_are_given() -> None:
    """Three queries, one without a positive; the best match is right for one of them."""
    result = figures(rank(QUERIES, DATABASE, rows([1, 3], [], [1])))
    assert (result.queries, result.with_positive) == (3, 2)
    assert result.hits == {1: 1, 5: 2, 10: 2, 20: 2, 100: 2}
    assert result.recall(1) == pytest.approx(1 / 3)
    assert result.recall_with_positive(1) == pytest.approx(1 / 2)
    assert result.recall(5) == pytest.approx(2 / 3)
    assert result.recall_with_positive(5) == 1.0


def test_average_precision_is_the_hand_worked_one() -> None:
    """Positives second and fourth: (1/2 + 2/4) / 2; the other query's first: 1."""
    ranking = rank(QUERIES, DATABASE, rows([1, 3], [], [1]))
    precision = average_precision(ranking)
    assert precision[[0, 2]].tolist() == [0.5, 1.0]
    assert np.isnan(precision[1])
    assert figures(ranking).mean_average_precision == 0.75


def test_a_condition_is_measured_on_its_own_queries() -> None:
    ranking = rank(QUERIES, DATABASE, rows([1, 3], [], [1]))
    night = figures(ranking, np.array([True, True, False]))
    assert (night.queries, night.with_positive, night.hits[1]) == (2, 1, 0)
    assert night.mean_average_precision == 0.5
    none = figures(ranking, np.zeros(3, bool))
    assert np.isnan(none.recall(1))
    assert np.isnan(none.recall_with_positive(1))
    assert np.isnan(none.mean_average_precision)


def test_recall_and_places_equal_a_plain_count_on_random_descriptors() -> None:
    generator = np.random.default_rng(0)
    database = generator.standard_normal((150, 8)).astype(np.float32)
    queries = generator.standard_normal((40, 8)).astype(np.float32)
    positives = [np.sort(generator.choice(150, n % 4, replace=False)) for n in range(40)]
    ranking = rank(queries, database, positives, keep=120)
    counts = dict.fromkeys((1, 5, 10, 20, 100), 0)
    for query, right in zip(queries, positives, strict=True):
        order = sorted(range(150), key=lambda row: -float(query @ database[row]))
        best = min((order.index(row) for row in right), default=None)
        for k in counts:
            counts[k] += best is not None and best < k
    assert figures(ranking).hits == counts


def test_blocks_do_not_change_a_ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    database = generator.standard_normal((30, 4)).astype(np.float32)
    queries = generator.standard_normal((11, 4)).astype(np.float32)
    positives = rows(*[[n, n + 9] for n in range(11)])
    whole = rank(queries, database, positives)
    monkeypatch.setattr("vladmap.retrieval.recall._SCORES_AT_ONCE", 4 * 30)
    parts = rank(queries, database, positives)
    assert np.array_equal(whole.rows, parts.rows)
    assert np.array_equal(whole.rank, parts.rank)


def test_what_was_not_described_neither_finds_nor_is_found() -> None:
    database, queries = DATABASE.copy(), QUERIES.copy()
    database[1], queries[2] = 0, 0
    ranking = rank(queries, database, rows([1, 3], [], [1]))
    assert ranking.rows.tolist() == [[0, 2, 3, -1], [3, 2, 0, -1], [-1, -1, -1, -1]]
    assert ranking.rank.tolist() == [NEVER, 2, NEVER]
    result = figures(ranking)
    assert (result.queries, result.with_positive, result.hits[5]) == (3, 2, 1)
    assert result.mean_average_precision == pytest.approx((1 / 3 / 2 + 0) / 2)


@pytest.mark.parametrize("factory", ["", "Flat"])
def test_no_photograph_finds_itself_where_one_is_left_out(factory: str) -> None:
    ranking = rank(
        DATABASE, DATABASE, rows([1], [0], [3], [2]), factory=factory, leave_one_out=True
    )
    # 10 degrees is as near to 0 as to 20: the lower row comes first.
    assert ranking.rows[:, 0].tolist() == [1, ranking.rows[1, 0], 1, 2]
    assert ranking.rows[1, 0] in (0, 2)
    assert not (ranking.rows == np.arange(4)[:, None]).any()
    assert ranking.rank[0] == 0


def test_rows_that_are_left_out_are_not_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in blocks of one query: each block leaves out what belongs to its own."""
    left_out = rows([0, 3], [], [2])
    whole = rank(QUERIES, DATABASE, rows([1, 3], [], [1]), left_out=left_out)
    assert whole.rows.tolist() == [[1, 2, -1, -1], [3, 2, 1, 0], [1, 0, 3, -1]]
    assert whole.rank.tolist() == [0, NEVER, 0]
    monkeypatch.setattr("vladmap.retrieval.recall._SCORES_AT_ONCE", 1)
    parts = rank(QUERIES, DATABASE, rows([1, 3], [], [1]), left_out=left_out)
    assert np.array_equal(whole.rows, parts.rows)
    with pytest.raises(ValueError, match="exact search alone"):
        rank(QUERIES, DATABASE, rows([], [], []), left_out=left_out, factory="Flat")


def test_an_exact_index_ranks_as_exact_search() -> None:
    generator = np.random.default_rng(2)
    database = generator.standard_normal((50, 6)).astype(np.float32)
    database[7] = 0
    queries = generator.standard_normal((9, 6)).astype(np.float32)
    positives = rows(*[[n, 7, n + 20] for n in range(9)])
    exact = rank(queries, database, positives, keep=60)
    index = rank(queries, database, positives, keep=60, factory="Flat")
    assert np.array_equal(exact.rows, index.rows)
    assert np.array_equal(exact.rank, index.rank)


def test_an_index_counts_only_what_it_gives() -> None:
    ranking = rank(QUERIES, DATABASE, rows([1, 3], [], [1]), keep=2, factory="Flat")
    assert ranking.rows.shape == (3, 2)
    assert ranking.rank.tolist() == [1, NEVER, 0]
    assert average_precision(ranking)[0] == 0.25


def test_re_ranking_moves_the_first_rows_and_their_positives() -> None:
    ranking = rank(QUERIES, DATABASE, rows([1, 3], [], [1]))
    after = reordered(ranking, np.array([[1, 0], [0, 1], [1, 0]]))
    assert after.rows.tolist() == [[1, 0, 2, 3], [3, 2, 1, 0], [2, 1, 0, 3]]
    assert after.rank.tolist() == [0, 3, 1]
    assert after.best_positive().tolist() == [1, -1, 1]
    assert after.similarity[0, 0] == ranking.similarity[0, 1]
    assert ranking.rank.tolist() == [1, 3, 0]


def test_precision_and_recall_are_the_hand_worked_ones() -> None:
    """Five matches; the two of distance 0.3 are accepted together, the unknown one never."""
    score = np.array([0.3, 0.1, 0.3, 0.5, np.nan])
    right = np.array([False, True, True, True, False])
    curve = precision_recall(score, right, with_positive=4)
    assert curve.threshold.tolist() == [0.1, 0.3, 0.5]
    assert curve.precision.tolist() == [1.0, 2 / 3, 3 / 4]
    assert curve.recall.tolist() == [0.25, 0.5, 0.75]
    assert curve.area == pytest.approx(0.25 * (1 + 2 / 3 + 3 / 4))
    assert curve.recall_at_full_precision == 0.25


def test_a_curve_of_nothing_is_empty() -> None:
    curve = precision_recall(np.array([np.nan]), np.array([False]), 0)
    assert len(curve.recall) == 0
    assert (curve.area, curve.recall_at_full_precision) == (0.0, 0.0)


def test_the_ratio_score_looks_for_the_second_best_elsewhere() -> None:
    """Distances 0.2, 0.4, 0.8: the second row is at the best one's place, so 0.2 / 0.8."""
    apart = np.array([[0.2, 0.4, 0.8]])
    similarity = (1 - apart**2 / 2).astype(np.float32)
    assert distances(similarity) == pytest.approx(apart, abs=1e-6)
    none = np.empty(0, np.int64)
    ranking = Ranking(np.array([[4, 5, 6]]), similarity, none, none, none)
    near = np.array([[True, True, False]])
    assert ratio_scores(ranking, near) == pytest.approx([0.25], abs=1e-6)
    # All of them at one place: the last stands in for what lies beyond.
    assert ratio_scores(ranking, np.ones((1, 3), bool)) == pytest.approx([0.25], abs=1e-6)
    nothing = Ranking(np.array([[-1]]), np.array([[-np.inf]], np.float32), none, none, none)
    assert np.isnan(ratio_scores(nothing, np.array([[False]]))[0])
