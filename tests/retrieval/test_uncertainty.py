from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from vladmap.retrieval import uncertainty
from vladmap.retrieval.recall import Ranking
from vladmap.retrieval.uncertainty import (
    SLOPES,
    calibrate,
    expected_calibration_error,
    fit_slope,
    scores_of,
    spatial_uncertainty,
)


def ranking(rows: list[list[int]], apart: list[list[float]]) -> Ranking:
    similarity = 1 - np.array(apart) ** 2 / 2
    similarity[np.array(rows) < 0] = -np.inf
    nothing = np.empty(0, np.int64)
    return Ranking(np.array(rows), similarity.astype(np.float32), nothing, nothing, nothing)


def test_the_spatial_spread_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    rows, apart = rng.integers(0, 40, (6, 12)), np.sort(rng.uniform(0.3, 1.2, (6, 12)), axis=1)
    positions = rng.uniform(-200, 200, (40, 2))
    found = spatial_uncertainty(ranking(rows.tolist(), apart.tolist()), positions, 5.0)
    for own, near, spread in zip(apart, rows, found, strict=True):
        weight = np.exp(-5.0 * own[:10])
        weight /= weight.sum()
        mean = sum(w * positions[row] for w, row in zip(weight, near[:10], strict=True))
        variance = sum(
            w * (positions[row] - mean) ** 2 for w, row in zip(weight, near[:10], strict=True)
        )
        assert spread == pytest.approx(variance.mean(), rel=1e-4)


def test_the_spread_is_clipped_on_both_sides_and_needs_a_match() -> None:
    far = np.array([[0.0, 0], [10_000, 0], [-10_000, 0], [0, 10_000]])
    equal = [[0.5, 0.5]]
    for other in (1, 2, 3):  # 5 km from the mean: 500 m count, whichever way
        spread = spatial_uncertainty(ranking([[0, other]], equal), far, 1.0)
        assert spread[0] == pytest.approx(500**2 / 2)
    assert spatial_uncertainty(ranking([[0, -1]], equal), far, 1.0)[0] == 0
    assert np.isnan(spatial_uncertainty(ranking([[-1, -1]], equal), far, 1.0)[0])


def test_a_steep_slope_counts_the_best_alone_and_a_flat_one_all_alike() -> None:
    places = np.array([[0.0, 0], [6, 0]])
    close = ranking([[0, 1]], [[0.5, 0.6]])
    assert spatial_uncertainty(close, places, 1e4)[0] == pytest.approx(0, abs=1e-9)
    assert spatial_uncertainty(close, places, 1e-9)[0] == pytest.approx(9 / 2)


def test_the_slope_is_fitted_to_the_scale_of_the_distances() -> None:
    """Right queries have their second match near by; wrong ones far off, all equally alike but the
    third, which is far off for all and unlike by the scale of the descriptor."""

    def fitted(scale: float) -> float:
        rng = np.random.default_rng(1)
        right = rng.uniform(size=200) < 0.5
        rows = np.where(right[:, None], [0, 1, 3], [0, 2, 3])
        apart = scale * (1 + np.array([0.0, 0.02, 1.0]) + rng.uniform(0, 0.01, (200, 3)))
        apart[:, 2] += scale * 3 * rng.uniform(0, 1, 200) * ~right
        places = np.array([[0.0, 0], [2, 0], [60, 0], [900, 0]])
        every = np.ones(200, bool)
        return fit_slope(ranking(rows.tolist(), apart.tolist()), places, right, every)

    assert fitted(0.005) > 3 * fitted(0.3)
    assert fitted(0.3) in SLOPES


def test_scores_are_lower_where_a_match_is_surer() -> None:
    places = np.array([[0.0, 0], [100, 0]])
    both = ranking([[0, 1], [0, 1], [-1, -1]], [[0.2, 0.8], [0.7, 0.8], [0, 0]])
    near = np.array([[True, False]] * 3)
    scores = scores_of(both, near, places, 5.0, np.array([50.0, 2.0, 0.0]))
    assert sorted(scores) == ["distance", "inliers", "ratio", "sue"]
    for score in scores.values():
        assert score[0] < score[1]
        assert np.isnan(score[2])
    assert scores["ratio"][0] == pytest.approx(0.25, rel=1e-5)


def test_the_regression_is_where_its_loss_is_least() -> None:
    rng = np.random.default_rng(2)
    distance, ratio = rng.normal(1, 0.1, 300), rng.uniform(0.5, 1, 300)
    right = rng.uniform(size=300) < 1 / (1 + np.exp(20 * (distance - 1)))
    model = calibrate({"distance": distance, "ratio": ratio}, right)
    x = np.column_stack([distance, ratio])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    x = np.concatenate([x, np.zeros((2, 2))])
    truth = np.append(right, [False, True])

    def loss(weight: np.ndarray) -> float:
        value = x @ weight[:2] + weight[2]
        return float(np.sum(np.logaddexp(0, value) - truth * value) + (weight[:2] ** 2).sum() / 2)

    best = minimize(loss, np.zeros(3), tol=1e-12).x
    assert np.allclose([*model.weight, model.bias], best, atol=1e-4)


def test_probabilities_stay_inside_where_all_are_right_and_without_matches_unknown() -> None:
    scores = {"distance": np.linspace(0, 1, 50)}
    chance = calibrate(scores, np.ones(50, bool)).probability(scores)
    assert (chance > 0.9).all()
    assert (chance < 1).all()
    scores["distance"][3] = np.nan
    assert np.isnan(calibrate(scores, np.ones(50, bool)).probability(scores)[3])
    with pytest.raises(ValueError, match="no query has a match"):
        calibrate({"distance": np.full(3, np.nan)}, np.ones(3, bool))


def test_the_calibration_error_is_the_sum_by_hand() -> None:
    chance = np.array([0.05, 0.05, 0.85, 0.85, 1.0, np.nan])
    right = np.array([False, True, True, True, True, False])
    error, curve = expected_calibration_error(chance, right)
    assert error == pytest.approx((2 * abs(0.05 - 0.5) + 2 * 0.15 + 0) / 5)
    assert [count for _, _, count in curve] == [2, 2, 1]
    assert curve[0] == pytest.approx((0.05, 0.5, 2))


def test_a_negative_clip_is_no_trap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place far behind the mean counts as one far ahead of it: the spread has no direction."""
    monkeypatch.setattr(uncertainty, "CLIP", 50.0)
    east = np.array([[0.0, 0], [0, 0], [0, 0], [900, 0]])
    rows, apart = [[0, 1, 2, 3]], [[0.5] * 4]
    one = spatial_uncertainty(ranking(rows, apart), east, 1.0)
    other = spatial_uncertainty(ranking(rows, apart), -east, 1.0)
    assert one[0] == pytest.approx(other[0])
