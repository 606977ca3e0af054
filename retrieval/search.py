"""Exact nearest neighbours of each query within a list of candidates that is its own."""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import numpy as np
from numpy.typing import NDArray

from vladmap.retrieval.threads import single_thread


def nearest_among(
    queries: NDArray[np.float32],
    database: NDArray[np.float32],
    candidates: Sequence[NDArray[np.int64]],
    k: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The `k` candidates of each query that are most similar to it, best first.

    `queries` (Q, D) and `database` (N, D) are unit vectors, `candidates` Q lists of database rows.
    Returns cosines and rows, (Q, k), padded with cosine -inf and row -1 for a query that has fewer
    candidates.
    """
    similarity = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    index = faiss.IndexFlatIP(database.shape[1])
    index.add(np.ascontiguousarray(database))
    with single_thread():
        for n, allowed in enumerate(candidates):
            wanted = min(k, len(allowed))
            if wanted == 0:
                continue
            selector = faiss.IDSelectorBatch(np.ascontiguousarray(allowed, np.int64))
            parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
            nearest = index.search(queries[n : n + 1], wanted, params=parameters)
            similarity[n, :wanted], rows[n, :wanted] = nearest[0][0], nearest[1][0]
    return similarity, rows
