from __future__ import annotations

import numpy as np
import pytest
import torch

from vladmap.models import whitening as module
from vladmap.models.whitening import (
    Whitening,
    WhiteningLayer,
    add_up,
    first_basis,
    fit_reduction,
    fit_whitening,
    whitened,
)
from vladmap.schemas.rejects import UserError


@pytest.mark.parametrize("full", [20, 400])
def test_whitened_training_data_are_uncorrelated_with_unit_variance(full: int) -> None:
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(12, full)) * np.geomspace(1, 0.05, 12)[:, None]
    data = (generator.normal(size=(200, 12)) @ mixing + 3).astype(np.float32)
    whitening = fit_whitening(data, 8)
    projected = data.astype(np.float64) @ whitening.weight.T.astype(np.float64) + whitening.bias
    assert np.abs(projected.mean(axis=0)).max() < 1e-3
    assert np.cov(projected.T) == pytest.approx(np.eye(8), abs=2e-3)


def test_few_images_are_refused_and_told_how_many_it_takes() -> None:
    data = np.random.default_rng(0).normal(size=(79, 30)).astype(np.float32)
    with pytest.raises(UserError, match="at least 80 images, there are 79"):
        fit_whitening(data, 8)


def test_more_dimensions_than_the_descriptors_span_are_refused() -> None:
    plane = np.random.default_rng(0).normal(size=(100, 2)) @ np.eye(2, 6)
    with pytest.raises(UserError, match="span fewer"):
        fit_whitening(plane.astype(np.float32), 4)


def test_the_layer_projects_and_normalises() -> None:
    data = np.random.default_rng(1).normal(size=(60, 6)).astype(np.float32)
    whitening = fit_whitening(data, 3)
    found = WhiteningLayer(whitening)(torch.from_numpy(data[:5])).numpy()
    expected = data[:5].astype(np.float64) @ whitening.weight.T + whitening.bias
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert found == pytest.approx(expected, abs=1e-6)


def decaying(count: int, full: int) -> np.ndarray:
    """Unit rows whose variances fall off as those of descriptors do."""
    generator = np.random.default_rng(2)
    rows = generator.normal(size=(count, full)) * np.arange(1, full + 1) ** -0.7 + 0.05
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_short_descriptors_have_the_eigenvectors_of_their_covariance() -> None:
    data = decaying(400, 50)
    found = fit_whitening(data, 10)
    exact = data.astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(exact.T))
    expected = vectors[:, ::-1][:, :10].T / np.sqrt(values[::-1][:10])[:, None]
    signs = np.sign((found.weight * expected).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found.weight, signs * expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(found.bias, -found.weight @ exact.mean(axis=0), atol=1e-4)


def test_long_descriptors_are_whitened_in_a_subspace_as_good_as_the_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_EXACT", 100)
    data = decaying(2000, 600)
    found = fit_whitening(data, 64)
    projected = data.astype(np.float64) @ found.weight.T.astype(np.float64) + found.bias
    assert np.cov(projected.T) == pytest.approx(np.eye(64), abs=2e-3)
    covariance = np.cov(data.astype(np.float64).T)
    axes = np.linalg.qr(found.weight.astype(np.float64).T)[0]
    kept = np.trace(axes.T @ covariance @ axes)
    assert kept > 0.995 * np.linalg.eigvalsh(covariance)[-64:].sum()


def test_sums_are_the_same_to_the_last_bit_in_any_order() -> None:
    parts = np.split(decaying(60, 40), 6)
    basis = first_basis(40, 8)
    sums = [add_up(part, basis) for part in parts]
    forward = sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5]
    backward = (sums[5] + (sums[4] + sums[3])) + (sums[2] + (sums[1] + sums[0]))
    assert forward.count == backward.count == 60
    assert np.array_equal(forward.products, backward.products)
    assert np.array_equal(forward.total, backward.total)


@pytest.mark.parametrize(("count", "full"), [(120, 300), (300, 40)])
def test_reduced_by_half_each_number_has_the_square_root_of_its_variance(
    count: int, full: int
) -> None:
    data = decaying(count, full)
    fitted = fit_reduction(data, 30)
    assert fitted is not None
    exact = data.astype(np.float64)
    variances = np.linalg.eigvalsh(np.cov(exact.T))[::-1][:30]
    projected = exact @ fitted.weight.T.astype(np.float64) + fitted.bias
    found = np.cov(projected.T)
    # lambda over the square of its fourth root, in units in which the first stays what it is.
    np.testing.assert_allclose(np.diag(found), np.sqrt(variances * variances[0]), rtol=1e-3)
    assert np.abs(found - np.diag(np.diag(found))).max() < 1e-3 * found.max()


def test_a_reduction_is_as_wide_as_the_images_span_and_few_are_left_whole() -> None:
    data = decaying(120, 300)
    fitted = fit_reduction(data, 1024)
    assert fitted is not None
    assert fitted.weight.shape == (119, 300)
    twice = fit_reduction(np.repeat(data[:60], 2, axis=0), 1024)
    assert twice is not None
    assert len(twice.bias) == 59
    assert fit_reduction(data[:99], 16) is None
    assert fit_reduction(np.repeat(data[:1], 100, axis=0), 16) is None


def test_whitened_rows_by_hand_and_those_that_stand_for_none_stay_zero() -> None:
    """2 x and y + 1 of (1, 0) are (2, 1), of length sqrt(5)."""
    whitening = Whitening(np.diag([2.0, 1.0]).astype(np.float32), np.array([0, 1], np.float32))
    found = whitened(np.array([[1, 0], [0, 0]], np.float32), whitening)
    np.testing.assert_allclose(found, [[2 / 5**0.5, 1 / 5**0.5], [0, 0]], rtol=1e-6)
