from __future__ import annotations

import numpy as np
import pytest

from vladmap.retrieval.kdtree import search_tree
from vladmap.retrieval.names import KDTREE
from vladmap.retrieval.recall import rank


def unit(count: int, dimension: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("dimension", [2, 8, 64])
def test_the_tree_finds_what_a_plain_search_in_float64_finds(dimension: int) -> None:
    database, queries = unit(400, dimension, 0), unit(30, dimension, 1)
    similarity, rows = search_tree(database, queries, 12)
    cosines = queries.astype(np.float64) @ database.T.astype(np.float64)
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :12]
    assert (rows == best).mean() > 0.99  # cosines that are equal in float32 may change places
    assert np.abs(similarity - np.take_along_axis(cosines, best, axis=1)).max() < 1e-6


def test_equal_rows_are_in_their_order_and_what_is_missing_is_padded() -> None:
    database = np.repeat(unit(2, 4, 0), 2, axis=0)
    similarity, rows = search_tree(database, database[[2]], 6)
    assert rows.tolist() == [[2, 3, 0, 1, -1, -1]]
    assert np.isneginf(similarity[0, 4:]).all()
    assert search_tree(database[:0], database, 3)[1].tolist() == [[-1] * 3] * 4


def test_an_evaluation_ranks_by_it_as_by_exact_search() -> None:
    database, queries = unit(200, 6, 2), unit(40, 6, 3)
    database[7] = queries[5] = 0  # without a descriptor
    positives = [np.array([n, n + 1]) for n in range(40)]
    plain = rank(queries, database, positives, keep=200)
    tree = rank(queries, database, positives, keep=200, factory=KDTREE)
    assert (tree.rows[:, :199] == plain.rows[:, :199]).mean() > 0.999
    assert (tree.rank == plain.rank).mean() > 0.98
    own = rank(database, database, [np.array([0])] * 200, factory=KDTREE, leave_one_out=True)
    assert not (own.rows == np.arange(200)[:, None]).any()
