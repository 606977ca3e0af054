from __future__ import annotations

import random
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest

from vladmap.models import whitening as module
from vladmap.models.whitening import Whitening, fit_whitening
from vladmap.transforms.whitening import FitWhitening


def fitted(parts: list[np.ndarray], dimension: int, folder: Path) -> Whitening:
    def keep(whitening: Whitening) -> None:
        np.savez(folder / "whitening.npz", weight=whitening.weight, bias=whitening.bias)

    with beam.Pipeline("FnApiRunner") as pipeline:
        pipeline | beam.Create(parts) | FitWhitening(dimension, seed=3) | beam.Map(keep)
    arrays = np.load(folder / "whitening.npz")
    return Whitening(arrays["weight"], arrays["bias"])


@pytest.mark.parametrize("exact", [100, 20])
def test_parts_in_any_order_give_the_whitening_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exact: int
) -> None:
    monkeypatch.setattr(module, "_EXACT", exact)
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(240, 60)) * np.geomspace(1, 0.01, 60)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    parts = np.split(rows, 12)
    whitening = fitted(parts, 6, tmp_path)
    whole = fit_whitening(rows, 6, seed=3)
    np.testing.assert_allclose(whitening.weight, whole.weight, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(whitening.bias, whole.bias, rtol=1e-4, atol=1e-4)
    random.Random(1).shuffle(parts)
    again = fitted(parts, 6, tmp_path)
    assert np.array_equal(again.weight, whitening.weight)
    assert np.array_equal(again.bias, whitening.bias)


def test_too_few_descriptors_end_the_pipeline_and_say_how_many_it_takes(tmp_path: Path) -> None:
    parts = np.split(np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32), 4)
    with pytest.raises(Exception, match="needs at least 50 images, there are 40"):
        fitted(parts, 5, tmp_path)
