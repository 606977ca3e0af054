"""The FAISS index: choose it, train it, search it, measure it; index_parts fills it.

Descriptors are unit vectors and the metric is their inner product, so that a score is a cosine.
Every step gives the same index for the same inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import faiss
import numpy as np
from numpy.typing import NDArray

from vladmap.retrieval.descriptors import ImageIds, fair_sample
from vladmap.retrieval.devices import best_first, faiss_computes_on, flat_on_gpu, inner_products
from vladmap.retrieval.threads import single_thread
from vladmap.schemas.rejects import UserError

Matrix = NDArray[np.float32]
Index = faiss.Index

FLAT_BELOW = 20_000
_HNSW_FROM = 1_000_000
_HNSW_LISTS = 16_384
MOST_LISTS = 256
"""Inverted lists that a query visits, at most: an eighth of all lists of 131,000 vectors. With an
eighth always, a search would take as much longer as there are more vectors."""


def choose_factory(count: int, dimension: int) -> str:
    """The FAISS factory string for `count` vectors, by FAISS's guidelines for each collection size.

    Below FLAT_BELOW vectors search is exact. Above, an index has inverted lists: about 8 sqrt(N)
    below a million vectors, _HNSW_LISTS beyond. FAISS's guidelines name 65,536 and more there, but
    as many cannot be trained on the sample that one worker holds (pipeline.indexing). Vectors of
    1024 dimensions or more are quantised to 8 bits per number.
    """
    if count < FLAT_BELOW:
        return "Flat"
    codes = "SQ8" if dimension >= 1024 else "Flat"
    if count < _HNSW_FROM:
        lists = 2 ** round(math.log2(8 * math.sqrt(count)))
        return f"IVF{lists},{codes}"
    return f"IVF{_HNSW_LISTS}_HNSW32,{codes}"


def train_index(factory: str, dimension: int, sample: Matrix, device: str = "cpu") -> faiss.Index:
    """An empty index trained on (n, D) vectors, on a GPU if `device` asks for it and FAISS has one.

    Raises UserError for a factory FAISS refuses.
    """
    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"--factory {factory}: FAISS does not know it ({reason})") from error
    if not index.is_trained:
        lists = getattr(innermost(index), "nlist", 1)
        if len(sample) < lists:
            raise UserError(
                f"--factory {factory} has {lists} lists, but only {len(sample)} images are there "
                "to train them: choose fewer lists, or Flat"
            )
        # Sums over threads are not associative; one thread trains the same lists each time.
        with single_thread(), _assigned_on(index, device):
            index.train(sample)
    return index


def innermost(index: faiss.Index) -> faiss.Index:
    """The index behind the rotations and projections of vectors."""
    while isinstance(index, faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    return index


@contextmanager
def _assigned_on(index: faiss.Index, device: str) -> Iterator[None]:
    """In the block, the index's lists are trained by an exact index on the GPU, if asked for."""
    if isinstance(index, faiss.IndexIVF) and faiss_computes_on(device):
        # A quantizer that trains alone, such as HNSW, is trained by Euclidean distance.
        by_product = index.quantizer_trains_alone in (0, "\0")  # FAISS has it as a character
        assigned_by = flat_on_gpu(index.d, by_product)
        index.clustering_index = assigned_by
        try:
            yield
        finally:
            index.clustering_index = None  # type: ignore[assignment]  # as it was
    else:
        yield


def to_bytes(index: faiss.Index) -> bytes:
    """The index as `faiss.read_index` reads it from a file."""
    data: bytes = faiss.serialize_index(index).tobytes()
    return data


def from_bytes(data: bytes) -> faiss.Index:
    """The inverse of `to_bytes`; UserError where the bytes are no index."""
    try:
        return faiss.deserialize_index(np.frombuffer(data, np.uint8))
    except RuntimeError as error:
        raise UserError(f"not a FAISS index: {str(error).strip().splitlines()[-1]}") from error


def visited_lists(index: faiss.IndexIVF) -> int:
    """Inverted lists that a query visits."""
    return min(index.nlist, max(16, index.nlist // 8), MOST_LISTS)


def search(
    index: faiss.Index,
    queries: Matrix,
    k: int,
    below: int | None = None,
    among: NDArray[np.int64] | None = None,
) -> tuple[Matrix, NDArray[np.int64]]:
    """The k best of each query: similarities and ids, (Q, k), best first; id -1 where fewer.

    With `below`, only among the ids less than it; with `among` (n,), only among those. An IVF index
    visits an eighth of its lists, at least 16 and at most MOST_LISTS; all of them where it chooses
    `among` ids, which may lie in any.
    """
    k = min(k, index.ntotal)
    if k == 0 or len(queries) == 0:
        return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
    chosen: faiss.IDSelector | None = None
    if among is not None:
        chosen = faiss.IDSelectorBatch(np.ascontiguousarray(among, np.int64))
    elif below is not None:
        chosen = faiss.IDSelectorRange(0, below)
    inner = innermost(index)
    if isinstance(inner, faiss.IndexIVF):
        parameters: faiss.SearchParameters = faiss.SearchParametersIVF(
            sel=chosen,  # type: ignore[call-arg]  # FAISS's stubs lack the keywords
            nprobe=visited_lists(inner) if among is None else inner.nlist,
        )
    else:
        parameters = faiss.SearchParameters(sel=chosen)  # type: ignore[call-arg]
    similarity, ids = index.search(queries, k, params=parameters)
    return similarity, ids


Blocks = Iterator[tuple[int, Matrix]]
"""(id of the first row, vectors) of everything in an index, in order."""


def recall_of_sample(
    index: faiss.Index,
    ids: ImageIds,
    read: Callable[[], Blocks],
    queries: int,
    k: int = 10,
    device: str = "cpu",
) -> dict[str, float | int]:
    """`self_recall` of the `queries` images whose ids are lowest.

    `ids` are the image ids of the index's rows. `read` reads the vectors and is called twice: they
    are never in memory as a whole.
    """
    rows = fair_sample(ids, queries)
    vectors = [
        block[rows[(rows >= start) & (rows < start + len(block))] - start]
        for start, block in read()
    ]
    return self_recall(index, read(), np.concatenate(vectors), rows, k, device)


def self_recall(
    index: faiss.Index,
    blocks: Blocks,
    queries: Matrix,
    rows: NDArray[np.int64],
    k: int = 10,
    device: str = "cpu",
) -> dict[str, float | int]:
    """Of the queries' k exact nearest neighbours, the share that the index finds.

    `rows` are the queries' own ids, which do not count. Returns `recall`, `recall_at` and
    `recall_queries`.
    """
    k = min(k, index.ntotal - 1)
    if k < 1:
        return {"recall": 1.0, "recall_at": 0, "recall_queries": 0}
    best = np.full((len(queries), k + 1), -np.inf, np.float32)
    exact = np.full((len(queries), k + 1), -1, np.int64)
    for start, block in blocks:
        scores = np.concatenate([best, inner_products(queries, block, device)], axis=1)
        ids = np.concatenate(
            [
                exact,
                np.broadcast_to(np.arange(start, start + len(block)), (len(queries), len(block))),
            ],
            axis=1,
        )
        order = best_first(scores, device)[:, : k + 1]
        best, exact = (np.take_along_axis(values, order, axis=1) for values in (scores, ids))
    _, approximate = search(index, queries, k + 1)
    others = _without_self(exact, rows, k)
    hits = (_without_self(approximate, rows, k)[:, :, None] == others[:, None, :]).any(axis=2)
    return {
        "recall": round(float(hits.mean()), 6),
        "recall_at": k,
        "recall_queries": len(queries),
    }


def _without_self(ids: NDArray[np.int64], rows: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The first k ids of each row that are not the query itself."""
    own = ids == rows[:, None]
    # If a query is not among its own k + 1 neighbours (duplicates came first), its last neighbour
    # is removed instead, so that every row has k.
    own[~own.any(axis=1), -1] = True
    return ids[~own].reshape(len(ids), -1)[:, :k]
