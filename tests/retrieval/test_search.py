from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vladmap.retrieval.search import nearest_among


def towards(*degrees: float) -> NDArray[np.float32]:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_nearest_are_those_among_a_querys_own_candidates() -> None:
    database = towards(0, 10, 20, 30, 40)
    candidates = [np.array(rows, np.int64) for rows in ([1, 3, 4], [0, 2], [])]
    similarity, nearest = nearest_among(towards(0, 40, 0), database, candidates, 3)
    assert nearest.tolist() == [[1, 3, 4], [2, 0, -1], [-1, -1, -1]]
    assert np.allclose(similarity[0], np.cos(np.radians([10, 30, 40])), atol=1e-6)
    assert np.isneginf(similarity[1, 2])


def test_it_is_an_exact_search() -> None:
    generator = np.random.default_rng(0)
    database = generator.normal(size=(300, 24)).astype(np.float32)
    queries = generator.normal(size=(7, 24)).astype(np.float32)
    candidates = [np.sort(generator.permutation(300)[:80]) for _ in queries]
    _, nearest = nearest_among(queries, database, candidates, 5)
    for query, allowed, best in zip(queries, candidates, nearest, strict=True):
        assert best.tolist() == allowed[np.argsort(-(database[allowed] @ query))[:5]].tolist()
