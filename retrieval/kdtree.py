"""Exact search by a k-d tree: for descriptors of few dimensions, beside FAISS.

Bentley, "Multidimensional binary search trees used for associative searching" (CACM 1975), as
scipy's cKDTree. Beyond some twenty dimensions a tree looks at nearly all rows, and a plain search
is faster; docs/evaluation.md has the measurements.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Matrix = NDArray[np.float32]


def search_tree(database: Matrix, queries: Matrix, k: int) -> tuple[Matrix, NDArray[np.int64]]:
    """Cosines and rows (Q, k) of the `k` nearest of (N, D) unit vectors, best first.

    The nearest by Euclidean distance, which between unit vectors are those of the largest cosine.
    `queries` (Q, D) are unit vectors, too; a zero one has any neighbours. Rows of equal cosine are
    in their order. Padded with -inf and -1 where N is less than k.
    """
    count = min(k, len(database))
    similarity = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    if count == 0 or not len(queries):
        return similarity, rows
    _, found = cKDTree(database).query(queries, np.arange(1, count + 1))
    cosines = np.einsum("qkd,qd->qk", database[found], queries)
    order = np.lexsort((found, -cosines), axis=1)
    similarity[:, :count] = np.take_along_axis(cosines, order, axis=1)
    rows[:, :count] = np.take_along_axis(found, order, axis=1)
    return similarity, rows
