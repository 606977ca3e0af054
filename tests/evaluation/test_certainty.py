from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vladmap.evaluation.certainty import certainty_of
from vladmap.evaluation.intervals import groups_of
from vladmap.photos.layouts import EvaluationSet
from vladmap.photos.places import Places, within
from vladmap.retrieval.recall import Ranking, rank


def places(positions: np.ndarray) -> Places:
    count = len(positions)
    return Places(
        tuple(Path(f"{n}.jpg") for n in range(count)), positions, ("",) * count,
        np.full(count, np.nan),
    )  # fmt: skip


def worlds(count: int, each: int = 60, seed: int = 0) -> tuple[EvaluationSet, Ranking]:
    """Cities 5 km apart; queries look like their places, some more and some less."""
    rng = np.random.default_rng(seed)
    where = np.concatenate([
        np.column_stack([10.0 * np.arange(each), np.full(each, 5000.0 * n), np.zeros(each)])
        for n in range(count)
    ])  # fmt: skip
    rows = rng.normal(size=(len(where), 16))
    seen = rows + rng.uniform(0, 2.5, (len(where), 1)) * rng.normal(size=rows.shape)
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (rows, seen)]
    database, queries = places(where), places(where + [3.0, 0, 0])
    positives = within(queries, database, 8.0)
    chosen = EvaluationSet("utm", database, queries, positives, metres=8.0)
    ranking = rank(unit[1].astype(np.float32), unit[0].astype(np.float32), positives)
    return chosen, ranking


@pytest.mark.medium
def test_the_probability_is_calibrated_on_worlds_that_it_was_not_fitted_on() -> None:
    chosen, ranking = worlds(5, 250)
    found = certainty_of(chosen, ranking, ranking.first() == 0)
    assert found.fold_of == "5 folds of cities or worlds a kilometre apart"
    assert found.error is not None
    assert found.error < 0.05
    assert len(found.slopes) == 5
    # By chance it is the square of the share that is right, at best that share.
    assert found.scores["probability"].area > 0.8 * (ranking.first() == 0).mean()
    assert found.scores["probability"].interval.low < found.scores["probability"].area


def test_what_is_known_of_a_world_has_no_part_in_its_own_probabilities() -> None:
    chosen, ranking = worlds(4)
    right = ranking.first() == 0
    before = certainty_of(chosen, ranking, right).probability
    own = np.arange(len(right)) < 60
    after = certainty_of(chosen, ranking, np.where(own, ~right, right)).probability
    assert before is not None
    assert after is not None
    assert np.array_equal(before[own], after[own])
    assert not np.array_equal(before[~own], after[~own])


def test_of_few_queries_no_probability_is_made_up() -> None:
    chosen, ranking = worlds(1, 10)
    found = certainty_of(chosen, ranking, ranking.first() == 0)
    assert found.probability is None
    assert found.error is None
    assert sorted(found.scores) == ["distance", "ratio"]


def test_photographs_without_drives_are_drawn_by_squares() -> None:
    of = groups_of(worlds(2, 60)[0].queries)
    assert of.of == "squares of 200 m"
    assert 6 <= of.count <= 10


def test_inliers_are_a_score_of_their_own() -> None:
    chosen, ranking = worlds(3)
    right = ranking.first() == 0
    found = certainty_of(chosen, ranking, right, np.where(right, 40.0, 5.0))
    # All right ones have more inliers than any wrong one: the curve is 1 as far as it goes.
    assert found.scores["inliers"].area == pytest.approx(right.mean())
    assert found.scores["inliers"].recall_at_full_precision == pytest.approx(right.mean())
