"""An index's lists and neighbours by torch, on the CPU: what FAISS finds."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch

from tests.retrieval.test_devices import unit
from vladmap.retrieval import device_index, index_parts
from vladmap.retrieval.device_index import DeviceIndex, searcher
from vladmap.retrieval.faiss_index import search, train_index
from vladmap.retrieval.ranking import search_on

CPU = torch.device("cpu")
LISTED = ["IVF8,Flat", "IVF40,SQ8", "PCA12,IVF8,Flat", "IVF8,PQ4x4"]


def filled(factory: str) -> faiss.Index:
    index = train_index(factory, 24, unit(800, 2))
    index.add(unit(700, 4))
    return index


@pytest.mark.parametrize("factory", LISTED)
def test_codes_are_faiss_own_to_the_byte(factory: str) -> None:
    trained, vectors = train_index(factory, 24, unit(800, 2)), unit(500, 3)
    encode = device_index.encoder(trained, CPU)
    assert encode is not None
    assert np.array_equal(encode(vectors), index_parts.encode(trained, vectors))
    assert encode(vectors[:0]).shape == (0, trained.sa_code_size())
    assert trained.ntotal == 0


def test_where_faiss_looks_for_lists_by_a_graph_they_are_the_nearest() -> None:
    trained, vectors = train_index("IVF32_HNSW8,Flat", 24, unit(2000, 2)), unit(500, 3)
    encode = device_index.encoder(trained, CPU)
    assert encode is not None
    centres = trained.quantizer.reconstruct_n(0, 32)
    squares = ((vectors[:, None].astype(float) - centres) ** 2).sum(2)
    coarse = encode(vectors)[:, : trained.sa_code_size() - trained.code_size]
    assert np.array_equal(coarse[:, 0], squares.argmin(1))
    assert (encode(vectors) == index_parts.encode(trained, vectors)).all(axis=1).mean() > 0.95


def test_an_index_without_lists_is_left_to_faiss() -> None:
    flat = train_index("Flat", 24, unit(10, 2))
    assert device_index.encoder(flat, CPU) is None
    vectors = unit(9, 3)
    assert np.array_equal(index_parts.encoder(flat, CPU)(vectors), flat.sa_encode(vectors))


@pytest.mark.parametrize("factory", ["Flat", "SQ8", "PCA12,Flat", *LISTED, "HNSW8"])
@pytest.mark.parametrize("below", [700, 333, 4])
def test_neighbours_are_those_that_faiss_finds(
    factory: str, below: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_index, "_SCORES_AT_ONCE", 40 * 64)
    index, queries = filled(factory), unit(40, 5)
    similarity, ids = search(index, queries, 10, below)
    found_similarity, found = searcher(index, CPU)(queries, 10, below)
    # Vectors with the same codes of PQ are equally similar: their order is anyone's.
    assert np.array_equal(found, ids) or "PQ" in factory
    np.testing.assert_allclose(
        np.where(found < 0, 0, found_similarity), np.where(ids < 0, 0, similarity), atol=1e-5
    )


def test_a_kind_that_is_not_searched_there_is_said_and_searched_by_faiss(
    caplog: pytest.LogCaptureFixture,
) -> None:
    index, queries = filled("HNSW8"), unit(5, 5)
    found = searcher(index, CPU)(queries, 3, 700)
    assert np.array_equal(found[1], search(index, queries, 3, 700)[1])
    assert "searched on the CPU" in caplog.text


def test_equal_cosines_stand_in_the_order_of_their_ids_and_nothing_is_an_answer() -> None:
    index = faiss.IndexFlatIP(24)
    index.add(np.repeat(unit(3, 0), 4, axis=0))
    there = DeviceIndex.of(index, CPU)
    _, ids = there.search(unit(3, 0), 4, 12)
    assert ids.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert there.search(unit(3, 0), 5, 2)[1][:, 2:].tolist() == [[-1] * 3] * 3
    assert there.search(unit(0, 0), 5, 12)[1].shape == (0, 0)


def test_without_a_device_faiss_does_both() -> None:
    index, vectors = filled("IVF8,Flat"), unit(40, 5)
    assert np.array_equal(index_parts.encoder(index)(vectors), index.sa_encode(vectors))
    similarity, ids = search_on(index, None)(vectors, 5, 300)
    expected = search(index, vectors, 5, 300)
    assert np.array_equal(similarity, expected[0])
    assert np.array_equal(ids, expected[1])
