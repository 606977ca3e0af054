"""Re-ranking by local features: inliers are weighed together with the cosines of descriptors."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from jobs import reranking
from mapping.features import RootSift
from photos.layouts import EvaluationSet
from retrieval.evaluation import rank
from transforms import rerank as in_a_build

INLIERS = [10.0, 30.0, 70.0]
COSINES = [0.91, 0.7, 0.6]
ORDER = [0, 2, 1]  # by hand: 0.91 + 0.05, 0.7 + 0.15 and 0.6 + 0.35


def test_an_evaluation_and_a_build_order_by_the_same_sum() -> None:
    scores, similarity = np.array(INLIERS), np.array(COSINES, np.float32)
    ours = reranking.FeatureEvidence(RootSift(8))
    theirs = in_a_build.FeatureEvidence("", in_a_build.RerankSettings("features", 3))
    assert ours.order(scores, similarity).tolist() == ORDER
    assert theirs.order(scores, similarity).tolist() == ORDER


def test_each_query_is_ordered_with_the_cosines_of_its_own_candidates() -> None:
    """Two queries with the same inliers, of which one is sure of its first and one is not."""
    angles = np.array([0.0, 0.1, 1.2])
    database = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    queries = database[[0, 2]]
    ranking = rank(queries, database, [np.array([0]), np.array([2])])
    assert ranking.rows.tolist() == [[0, 1, 2], [2, 1, 0]]

    class Known(reranking.FeatureEvidence):
        def of(self, path: Path) -> str:
            return path.name

        def scores(self, query: Any, candidates: Any) -> Any:
            return np.array([0.0, 40.0, 40.0])

    sides = [SimpleNamespace(paths=[Path(f"{n}.jpg") for n in range(count)]) for count in (2, 3)]
    chosen = cast(EvaluationSet, SimpleNamespace(queries=sides[0], database=sides[1]))
    order, _ = reranking.new_order(ranking, chosen, Known(RootSift(8)), 3)
    # cos 0, 0.1 and 1.2 are 1, 0.995 and 0.362; cos 0, 1.1 and 1.2 are 1, 0.454 and 0.362.
    assert order.tolist() == [[1, 0, 2], [0, 1, 2]]
