from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from vladmap.retrieval import faiss_index
from vladmap.schemas.rejects import UserError

Matrix = NDArray[np.float32]


def _unit(count: int, dimension: int = 16, seed: int = 0) -> Matrix:
    rows = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _filled(factory: str, vectors: Matrix) -> faiss.Index:
    index = faiss_index.train_index(factory, vectors.shape[1], vectors[:1000])
    index.add(vectors)
    return index


@pytest.mark.slow
def test_training_gives_the_same_bytes_with_any_number_of_threads() -> None:
    program = (
        "import sys, hashlib, numpy as np; from vladmap.retrieval import faiss_index as i;"
        "x = np.random.default_rng(0).normal(size=(6000, 64)).astype(np.float32);"
        "x /= np.linalg.norm(x, axis=1, keepdims=True);"
        "t = i.train_index('IVF64,SQ8', 64, x); t.add(x);"
        "print(hashlib.sha256(i.to_bytes(t)).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": threads},
        ).stdout
        for threads in ("1", "2", "4")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == hashlib.sha256().digest_size * 2


@pytest.mark.parametrize("factory", ["Flat", "IVF64,Flat", "IVF64,SQ8"])
def test_a_search_among_some_ids_is_exact_among_these(factory: str) -> None:
    """Also where they lie in lists of an inverted file that a query would not visit."""
    vectors = _unit(2000)
    index = _filled(factory, vectors)
    among = np.random.default_rng(1).choice(2000, 40, replace=False)
    similarity, ids = faiss_index.search(index, vectors[:50], 5, among=among)
    exact = vectors[:50] @ vectors[among].T
    order = np.argsort(-exact, axis=1)[:, :5]
    np.testing.assert_allclose(similarity, np.take_along_axis(exact, order, 1), atol=0.06)
    if "SQ8" not in factory:
        assert np.array_equal(ids, among[order])
    assert np.isin(ids, among).all()
    _, few = faiss_index.search(index, vectors[:2], 5, among=among[:3])
    assert (few[:, 3:] == -1).all()
    assert np.isin(few[:, :3], among[:3]).all()


@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat"])
def test_a_search_below_an_id_sees_the_earlier_images_alone(factory: str) -> None:
    vectors = _unit(600)
    index = _filled(factory, vectors)
    similarity, ids = faiss_index.search(index, vectors[300:320], 5, below=250)
    # 16 lists are all visited, so the inverted lists are exact as well.
    exact = np.argsort(-(vectors[300:320] @ vectors[:250].T), axis=1)[:, :5]
    assert np.array_equal(ids, exact)
    assert (np.diff(similarity, axis=1) <= 0).all()


def test_fewer_images_than_asked_for_leave_minus_one() -> None:
    index = _filled("Flat", _unit(10))
    _, ids = faiss_index.search(index, _unit(1), 5, below=3)
    assert sorted(ids[0].tolist()) == [-1, -1, 0, 1, 2]


def test_a_search_of_nothing_or_in_nothing_is_empty() -> None:
    empty = faiss_index.train_index("Flat", 16, _unit(1))
    assert faiss_index.search(empty, _unit(2), 3)[1].shape == (2, 0)
    assert faiss_index.search(_filled("Flat", _unit(5)), _unit(0), 3)[1].shape[0] == 0


def _blocks(vectors: Matrix, size: int) -> Iterator[tuple[int, Matrix]]:
    for start in range(0, len(vectors), size):
        yield start, vectors[start : start + size]


def test_an_exact_index_recalls_everything() -> None:
    vectors = _unit(500)
    rows = np.arange(0, 500, 25)
    index = _filled("Flat", vectors)
    found = faiss_index.self_recall(index, _blocks(vectors, 130), vectors[rows], rows, k=10)
    assert found == {"recall": 1.0, "recall_at": 10, "recall_queries": 20}


def test_recall_is_the_share_of_exact_neighbours_that_the_index_holds() -> None:
    # By hand: the index lacks the second half, in which one of each query's neighbours lies.
    angle = np.radians([0, 1, 2.5, 4.2])
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    index = _filled("Flat", vectors[:3])
    rows = np.array([0, 2])
    recall = faiss_index.self_recall(index, _blocks(vectors, 2), vectors[rows], rows, k=2)
    # of image 0: 1 and 2, both there; of image 2: 1 and 3, one of them there
    assert recall["recall"] == 0.75


def test_one_image_has_no_neighbours_to_miss() -> None:
    vectors = _unit(1)
    index = _filled("Flat", vectors)
    found = faiss_index.self_recall(index, _blocks(vectors, 1), vectors, np.array([0]))
    assert found["recall"] == 1.0


@pytest.mark.parametrize("count", [20_000, 100_000, 999_999])
def test_inverted_lists_number_four_to_sixteen_roots_of_the_count(count: int) -> None:
    factory = faiss_index.choose_factory(count, 512)
    lists = int(factory.removeprefix("IVF").partition(",")[0])
    assert 4 <= lists / count**0.5 <= 16


@pytest.mark.parametrize(
    ("count", "prefix"),
    [
        (1, "Flat"),
        (19_999, "Flat"),
        (1_000_000, "IVF16384_HNSW32,"),
        (500_000_000, "IVF16384_HNSW32,"),
    ],
)
def test_the_factory_follows_the_published_guidelines(count: int, prefix: str) -> None:
    factory = faiss_index.choose_factory(count, 7168)
    assert factory.startswith(prefix)
    if count < 2_000_000:
        faiss.index_factory(64, factory, faiss.METRIC_INNER_PRODUCT)


@pytest.mark.parametrize(("factory", "says"), [("Flatt", "does not know"), ("IVF64,Flat", "fewer")])
def test_a_factory_that_cannot_work_is_one_clear_line(factory: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        faiss_index.train_index(factory, 16, _unit(20))


def test_bytes_that_are_no_index_are_refused() -> None:
    with pytest.raises(UserError, match="not a FAISS index"):
        faiss_index.from_bytes(b"nonsense")
