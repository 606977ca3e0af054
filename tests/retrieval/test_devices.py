"""Torch's exact search beside FAISS's and numpy's, and lists that are trained elsewhere."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch

from vladmap.retrieval import devices, faiss_index
from vladmap.retrieval.kmeans import kmeans

CPU = torch.device("cpu")


def unit(count: int, seed: int) -> devices.Matrix:
    rows = np.random.default_rng(seed).standard_normal((count, 24)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_torch_finds_the_neighbours_that_faiss_finds() -> None:
    database, queries = unit(500, 0), unit(40, 1)
    index = faiss.IndexFlatIP(24)
    index.add(database)
    similarity, ids = index.search(queries, 500)
    scores = devices.products_by_torch(queries, database, CPU)
    order = devices.order_by_torch(scores, CPU)
    assert np.array_equal(order[:, :20], ids[:, :20])
    np.testing.assert_allclose(np.take_along_axis(scores, order, 1), similarity, atol=1e-6)


def test_equal_scores_stand_in_the_order_of_their_rows() -> None:
    """As by numpy, minus infinities among them."""
    scores = np.float32([[1, 3, 3, -np.inf, 1, 3, -np.inf], [0, 0, 0, 0, 0, 0, 0]])
    expected = [[1, 2, 5, 0, 4, 3, 6], [0, 1, 2, 3, 4, 5, 6]]
    assert devices.order_by_torch(scores, CPU).tolist() == expected
    assert devices.best_first(scores).tolist() == expected


@pytest.mark.parametrize("factory", ["IVF8,Flat", "IVF8,SQ8", "IVF8_HNSW4,Flat"])
def test_lists_trained_by_an_exact_index_elsewhere_are_the_same(
    factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way to the GPU with the CPU's exact index in its place: the same bytes."""
    sample = unit(800, 2)
    here = faiss_index.to_bytes(faiss_index.train_index(factory, 24, sample))
    asked: list[bool] = []

    def flat(dimension: int, inner_product: bool) -> faiss.Index:
        asked.append(inner_product)
        return faiss.IndexFlatIP(dimension) if inner_product else faiss.IndexFlatL2(dimension)

    monkeypatch.setattr(faiss_index, "faiss_computes_on", lambda device: device == "cuda")
    monkeypatch.setattr(faiss_index, "flat_on_gpu", flat)
    assert faiss_index.to_bytes(faiss_index.train_index(factory, 24, sample, "cuda")) == here
    assert asked == ["HNSW" not in factory]


def test_a_faiss_without_gpus_says_so_and_learns_the_same_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0, raising=False)
    points = unit(200, 3)
    assert np.array_equal(kmeans(points, 5, 0, "cuda"), kmeans(points, 5, 0))
    assert "FAISS is no build for GPUs" in caplog.text
