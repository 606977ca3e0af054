"""Parts of an index, merged: the same bytes and neighbours as FAISS's own index of all vectors."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from vladmap.retrieval import faiss_index, index_parts
from vladmap.schemas.rejects import UserError

Matrix = NDArray[np.float32]
FACTORIES = [
    "Flat", "SQ8", "PQ4x4", "IVF16,Flat", "IVF300,Flat", "IVF16,SQ8",
    "IVF16,PQ4x4", "IVF8_HNSW8,Flat",
]  # fmt: skip


def _unit(count: int, dimension: int = 16, seed: int = 0) -> Matrix:
    rows = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _merged(factory: str, vectors: Matrix, cuts: list[int], path: Path) -> faiss.Index:
    trained = faiss_index.train_index(factory, vectors.shape[1], _unit(1000, vectors.shape[1], 1))
    empty = faiss_index.to_bytes(trained)
    parts = [index_parts.encode(trained, part) for part in np.split(vectors, cuts)]
    assert faiss_index.to_bytes(trained) == empty, "encoding leaves the trained index as it was"
    assert index_parts.write_merged(trained, lambda: parts, str(path)) == len(vectors)
    return index_parts.open_index(str(path))


@pytest.mark.parametrize("batch_bytes", [1, 1 << 30])
@pytest.mark.parametrize("factory", FACTORIES)
def test_a_merged_file_is_byte_for_byte_faiss_s_own_of_all_vectors_added_at_once(
    factory: str, batch_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches of one part, too; with an empty shard among them, and few lists filled."""
    monkeypatch.setattr(index_parts, "_BATCH_BYTES", batch_bytes)
    for vectors, cuts in ((_unit(900), [300, 300, 700]), (_unit(3), [1])):
        merged = _merged(factory, vectors, cuts, tmp_path / "index")
        whole = faiss_index.train_index(factory, vectors.shape[1], _unit(1000, seed=1))
        whole.add(vectors)
        assert (tmp_path / "index").read_bytes() == faiss_index.to_bytes(whole)
        for ours, theirs in zip(merged.search(vectors, 3), whole.search(vectors, 3), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("factory", ["IVF16,Flat", "IVF16,SQ8"])
def test_lists_stay_in_the_file(factory: str, tmp_path: Path) -> None:
    index = _merged(factory, _unit(500), [200], tmp_path / "index")
    lists = faiss.downcast_InvertedLists(index.invlists)
    assert isinstance(lists, faiss.OnDiskInvertedLists)


def test_a_projected_index_keeps_its_ids_from_part_to_part(tmp_path: Path) -> None:
    vectors = _unit(200)
    index = _merged("PCA16,IVF4,Flat", vectors, [50, 120], tmp_path / "index")
    _, ids = faiss_index.search(index, vectors, 1)
    assert ids[:, 0].tolist() == list(range(200))
    assert faiss_index.search(index, vectors, 1, below=50)[1].max() < 50


@pytest.mark.parametrize("factory", ["HNSW8", "IVF4,PQ8x4fs"])
def test_an_index_that_cannot_be_merged_is_one_clear_line(factory: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot merge"):
        _merged(factory, _unit(40), [20], tmp_path / "index")


def test_a_file_that_is_no_index_is_refused(tmp_path: Path) -> None:
    for data in (b"nonsense", b"IwFl", b""):
        (tmp_path / "index").write_bytes(data)
        with pytest.raises(UserError, match="not a FAISS index"):
            index_parts.open_index(str(tmp_path / "index"))


def test_no_parts_are_no_index(tmp_path: Path) -> None:
    trained = faiss_index.train_index("Flat", 4, _unit(4, 4))
    with pytest.raises(ValueError, match="no parts"):
        index_parts.write_merged(trained, lambda: [], str(tmp_path / "index"))
