"""How well scores and a calibrated probability tell right matches from wrong ones, held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from vladmap.evaluation.intervals import Groups, Interval, draws, groups_of
from vladmap.photos.layouts import EvaluationSet
from vladmap.photos.places import Places
from vladmap.retrieval.recall import Ranking, precision_recall
from vladmap.retrieval.uncertainty import (
    calibrate,
    expected_calibration_error,
    fit_slope,
    scores_of,
)

Floats = NDArray[np.float64]

_FOLDS = 5
_APART_M = 1000.0  # worlds, cities: between them nothing is shared
_FEWEST = 20  # queries with a match, to calibrate by
_RESAMPLED = 200  # of the 2,000 draws: each is a curve of its own


@dataclass(frozen=True, eq=False)
class ScoreQuality:
    """A score (Q,), lower being more certain, its area under precision-recall with an interval, and
    the share of the queries with a positive that are accepted before the first wrong one."""

    score: Floats
    area: float
    interval: Interval
    recall_at_full_precision: float


@dataclass(frozen=True, eq=False)
class Certainty:
    """What is known of how sure best matches are; scores by name, `probability` among them (as
    minus itself).

    `probability` (Q,) is held out: each query's is by a calibration of the other `folds`, which are
    `fold_of`. `slopes` are those that SUE had in them. `error` is the expected calibration error,
    `curve` the reliability curve. All None where there are too few queries to calibrate by.
    """

    scores: dict[str, ScoreQuality]
    probability: Floats | None
    folds: int
    fold_of: str
    slopes: list[float]
    error: float | None
    curve: list[tuple[float, float, int]]


def certainty_of(
    chosen: EvaluationSet, ranking: Ranking, right: NDArray[np.bool_], inliers: Floats | None = None
) -> Certainty:
    """The scores of a ranking, SUE and the probability held out by folds."""
    positions = _positions(chosen)
    near = chosen.near(ranking.rows[:, 0], ranking.rows)
    folds, of = _folds(chosen.queries)
    scores: dict[str, Floats] = {}
    probability = np.full(len(right), np.nan)
    slopes = []
    matched = ranking.rows[:, 0] >= 0
    able = matched.sum() >= _FEWEST and folds.max(initial=0) > 0
    for fold in range(folds.max(initial=0) + 1) if able else ():
        own, others = folds == fold, (folds != fold) & matched
        if not others.any():
            own[:] = False
            continue
        slope = fit_slope(ranking, positions, right, others)
        slopes.append(slope)
        found = scores_of(ranking, near, positions, slope, inliers)
        model = calibrate({name: value[others] for name, value in found.items()}, right[others])
        probability[own] = model.probability({name: value[own] for name, value in found.items()})
        for name, value in found.items():
            scores.setdefault(name, np.full(len(right), np.nan))[own] = value[own]
    error: float | None = None
    curve: list[tuple[float, float, int]] = []
    if able:
        scores["probability"] = -probability
        error, curve = expected_calibration_error(probability, right)
    else:
        found = scores_of(ranking, near, positions, 1.0, inliers)
        scores = {name: value for name, value in found.items() if name != "sue"}
    groups = groups_of(chosen.queries)
    positive = ranking.positives() > 0
    quality = {name: _quality(score, right, positive, groups) for name, score in scores.items()}
    return Certainty(
        quality,
        probability if able else None,
        int(folds.max(initial=-1)) + 1 if able else 0,
        of,
        slopes,
        error,
        curve,
    )


def _quality(
    score: Floats, right: NDArray[np.bool_], positive: NDArray[np.bool_], groups: Groups
) -> ScoreQuality:
    curve = precision_recall(score, right, int(positive.sum()))
    areas = []
    members = [np.flatnonzero(groups.number == number) for number in range(groups.count)]
    for drawn in draws(groups)[:_RESAMPLED]:
        times = drawn.astype(np.int64)
        rows = np.concatenate([np.tile(members[n], times[n]) for n in np.flatnonzero(times)])
        if positive[rows].any():
            found = precision_recall(score[rows], right[rows], int(positive[rows].sum()))
            areas.append(found.area)
    low, high = np.percentile(areas, (2.5, 97.5)) if areas else (np.nan, np.nan)
    return ScoreQuality(
        score,
        curve.area,
        Interval(float(low), float(high), groups.count, groups.of),
        curve.recall_at_full_precision,
    )


def _positions(chosen: EvaluationSet) -> Floats:
    """Positions (N, P) of the database in metres, or numbers of frames."""
    if chosen.metres is None:
        return np.arange(len(chosen.database), dtype=np.float64)[:, None]
    return chosen.database.positions


def _folds(queries: Places) -> tuple[NDArray[np.int64], str]:
    """The fold (Q,) of each query, from 0: whole cities a kilometre apart, else whole groups."""
    parts = _cities(queries.positions)
    of = "cities or worlds a kilometre apart"
    if parts.max(initial=0) < 2:
        groups = groups_of(queries)
        parts, of = groups.number, groups.of
    # Neighbouring stretches in different folds would share what is seen: folds are runs of groups.
    count = int(parts.max(initial=-1)) + 1
    folds = min(_FOLDS, count)
    return parts * folds // max(1, count), f"{folds} folds of {of}"


def _cities(positions: Floats) -> NDArray[np.int64]:
    placed = np.isfinite(positions).all(axis=1)
    if not placed.all() or not len(positions):
        return np.zeros(len(positions), np.int64)
    cells, cell_of = np.unique(
        np.floor(positions / _APART_M).astype(np.int64), axis=0, return_inverse=True
    )
    # Cells that touch are one city: what lies apart is more than a kilometre from all else.
    pairs = cKDTree(cells).query_pairs(1.8, output_type="ndarray")
    ones = np.ones(len(pairs), bool)
    graph = coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), (len(cells),) * 2)
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)[cell_of.ravel()]
