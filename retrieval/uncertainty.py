"""How sure a place is: scores of a query's best match, and one calibrated probability.

Zaffar, Nan and Kooij, "On the Estimation of Image-matching Uncertainty in Visual Place Recognition"
(CVPR 2024, arXiv 2404.00546), compare the scores; SUE, the spatial spread, is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vladmap.retrieval.recall import Ranking, precision_recall, ratio_scores, uncertainty

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

NEIGHBOURS = 10
"""Best matches whose spread is measured, as published."""

CLIP = 500.0
"""Metres (or frames) beyond which a match is no further away, on either side."""

SLOPES = np.geomspace(0.3, 1000.0, 24)
"""Slopes that are tried: what suits depends on how a descriptor's distances are spread."""

_RIDGE = 1.0  # of the logistic regression, on standardised scores
_STEPS = 50


def spatial_uncertainty(ranking: Ranking, positions: Floats, slope: float) -> Floats:
    """SUE (Q,) in square metres (or frames): how far apart the best matches lie.

    The 10 best matches weigh exp(-slope * d) by their distances d, less the least. SUE is half the
    weighted mean of the squared distances from the weighted mean of their `positions` (N, P), which
    is the mean of the two variances of positions on a plane; distances are clipped at 500 metres.
    (The published code clips the coordinates, and on one side alone.) NaN for a query without
    matches.
    """
    rows = ranking.rows[:, :NEIGHBOURS]
    known = rows >= 0
    apart = _distances(ranking)[:, :NEIGHBOURS]
    apart = np.where(known, apart, np.inf)
    least = apart.min(axis=1, keepdims=True, initial=np.inf)
    with np.errstate(invalid="ignore"):
        weight = np.where(known, np.exp(-slope * (apart - least)), 0.0)
    total = weight.sum(axis=1)
    weight /= np.maximum(total, 1e-300)[:, None]
    places = positions[np.where(known, rows, 0)]
    mean = np.einsum("qk,qkp->qp", weight, places)
    off = np.minimum(np.linalg.norm(places - mean[:, None], axis=2), CLIP)
    spread: Floats = np.einsum("qk,qk->q", weight, off**2) / 2
    return np.where(known.any(axis=1), spread, np.nan)


def fit_slope(
    ranking: Ranking, positions: Floats, right: NDArray[np.bool_], chosen: NDArray[np.bool_]
) -> float:
    """Of SLOPES that by which SUE tells right from wrong best among the queries `chosen` (Q,).

    Best is the largest area under the curve of precision and recall. `right` (Q,) are the queries
    whose best match is.
    """
    areas = []
    for slope in SLOPES.tolist():
        spread = spatial_uncertainty(ranking, positions, slope)[chosen]
        areas.append(precision_recall(spread, right[chosen], int(right[chosen].sum())).area)
    return float(SLOPES[int(np.argmax(areas))])


def scores_of(
    ranking: Ranking,
    near: NDArray[np.bool_],
    positions: Floats,
    slope: float,
    inliers: Floats | None = None,
) -> dict[str, Floats]:
    """Scores (Q,) by name, lower being more certain, NaN without a match.

    `distance` of the best match; `ratio` of it to the best elsewhere (PA score), where `near`
    (Q, K) marks what is at its place; `sue`; and `inliers` of the best match, negative, if given.
    """
    scores = {
        "distance": uncertainty(ranking),
        "ratio": ratio_scores(ranking, near),
        "sue": spatial_uncertainty(ranking, positions, slope),
    }
    if inliers is not None:
        scores["inliers"] = np.where(ranking.rows[:, 0] >= 0, -inliers, np.nan)
    return scores


@dataclass(frozen=True, eq=False)
class Calibration:
    """A logistic regression of scores: the probability that the best match is right.

    `names` are of the scores, `mean` and `scale` (P,) standardise them, `weight` (P,) and `bias`
    are the regression's. SUE and inliers enter by their logarithms.
    """

    names: tuple[str, ...]
    mean: Floats
    scale: Floats
    weight: Floats
    bias: float

    def probability(self, scores: dict[str, Floats]) -> Floats:
        """(Q,) the probability that each query's best match is right; NaN without a match."""
        x = (_columns(scores, self.names) - self.mean) / self.scale
        return np.asarray(1 / (1 + np.exp(-np.clip(x @ self.weight + self.bias, -50, 50))))


def calibrate(scores: dict[str, Floats], right: NDArray[np.bool_]) -> Calibration:
    """The calibration of scores (Q,) by queries whose answer is known. Queries without a match are
    left out.

    By Newton's method, with a ridge of 1 on the weights: where few are wrong, or none, the weights
    stay finite. The share of right ones is drawn to a half by two queries more, one right and one
    wrong. Raises ValueError where no query has a match.
    """
    names = tuple(sorted(scores))
    columns = _columns(scores, names)
    known = np.isfinite(columns).all(axis=1)
    if not known.any():
        raise ValueError("no query has a match to calibrate by")
    columns, truth = columns[known], right[known].astype(np.float64)
    mean, scale = columns.mean(axis=0), columns.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    x = np.column_stack([(columns - mean) / scale, np.ones(len(truth))])
    # One right and one wrong query of average scores.
    extra = np.zeros((2, x.shape[1]))
    extra[:, -1] = 1
    x, truth = np.concatenate([x, extra]), np.append(truth, [0.0, 1.0])
    ridge = np.diag(np.append(np.full(len(names), _RIDGE), 1e-9))
    weight = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(x @ weight, -50, 50)))
        slope = x.T @ (truth - chance) - ridge @ weight
        curve = (x * (chance * (1 - chance))[:, None]).T @ x + ridge
        step = np.linalg.solve(curve, slope)
        # Far from the optimum a whole step may lead away from it.
        weight += step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
        if np.abs(step).max() < 1e-9:
            break
    return Calibration(names, mean, scale, weight[:-1], float(weight[-1]))


def expected_calibration_error(
    probability: Floats, right: NDArray[np.bool_], bins: int = 10
) -> tuple[float, list[tuple[float, float, int]]]:
    """How far probabilities are from the shares that are right, and the reliability curve.

    The queries fall into `bins` equally wide bins of their probability. The error is the mean of
    |mean probability - share right| over the bins, weighted by their queries; the curve is that
    pair with the number of queries, of each bin that has any (Guo et al., "On calibration of modern
    neural networks", ICML 2017). NaN are left out; NaN where nothing is left.
    """
    known = ~np.isnan(probability)
    chance, truth = probability[known], right[known].astype(np.float64)
    if not len(chance):
        return float("nan"), []
    place = np.minimum((chance * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    means = np.bincount(place, chance, minlength=bins)
    shares = np.bincount(place, truth, minlength=bins)
    error = float(np.abs(means - shares).sum() / len(chance))
    used = np.flatnonzero(count)
    curve = [(float(means[n] / count[n]), float(shares[n] / count[n]), int(count[n])) for n in used]
    return error, curve


def _distances(ranking: Ranking) -> Floats:
    similarity = ranking.similarity.astype(np.float64)
    if ranking.cosines:
        return np.sqrt(np.maximum(0.0, 2.0 - 2.0 * similarity))
    return -similarity


def _columns(scores: dict[str, Floats], names: tuple[str, ...]) -> Floats:
    """(Q, P): the scores as the regression takes them."""
    parts = []
    for name in names:
        values = scores[name]
        if name == "sue":
            values = np.log1p(values)
        elif name == "inliers":
            values = -np.log1p(np.maximum(-values, 0.0))
        parts.append(values)
    return np.stack(parts, axis=1)
