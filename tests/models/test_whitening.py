from __future__ import annotations

import numpy as np
import pytest
import torch

from models.whitening import WhiteningLayer, fit_whitening
from schemas.rejects import UserError


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
