"""Re-ranking by local features: inliers are weighed together with the cosines of descriptors."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tests.photos.bad_photos import texture
from vladmap.evaluation import reranking
from vladmap.evaluation.sets import Smoothing
from vladmap.features.rootsift import KIND, RootSift
from vladmap.models import DescriptorModel
from vladmap.photos.layouts import EvaluationSet
from vladmap.retrieval.evaluation import rank
from vladmap.transforms import rerank as in_a_build

INLIERS = [10.0, 30.0, 75.0]
COSINES = [0.91, 0.7, 0.6]
ORDERS = {
    "features": [2, 0, 1],  # by hand: 0.91 + 0.05, 0.7 + 0.15 and 0.6 + 0.375
    "lighterglue": [0, 2, 1],  # 0.91 + 0.04, 0.7 + 0.12 and 0.6 + 0.3
}


@pytest.mark.parametrize("method", ["features", "lighterglue"])
def test_an_evaluation_and_a_build_order_by_the_same_sum(method: str) -> None:
    if method == "lighterglue":
        pytest.importorskip("kornia")
    scores, similarity = np.array(INLIERS), np.array(COSINES, np.float32)
    model = cast(DescriptorModel, None)  # features need none
    ours = reranking.evidence(method, model, 0)
    theirs = in_a_build.evidence("", in_a_build.RerankSettings(method, 3, "xfeat"))
    assert ours is not None
    assert theirs is not None
    assert ours.order(scores, similarity).tolist() == ORDERS[method]
    assert theirs.order(scores, similarity).tolist() == ORDERS[method]


def test_candidates_compared_by_several_threads_have_the_scores_of_one() -> None:
    walls = [RootSift(64).extract(texture(seed, 160, 120)) for seed in range(4)]
    one, three = (reranking.FeatureEvidence(RootSift(64), KIND.nearest, n) for n in (1, 3))
    scores = one.scores(walls[0], walls)
    assert scores[0] > 20 > scores[1:].max()
    assert three.scores(walls[0], walls).tolist() == scores.tolist()


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
    order, _ = reranking.new_order(
        ranking, chosen, Known(RootSift(8), KIND.nearest), 3, queries, database
    )
    # cos 0, 0.1 and 1.2 are 1, 0.995 and 0.362; cos 0, 1.1 and 1.2 are 1, 0.454 and 0.362.
    assert order.tolist() == [[1, 0, 2], [0, 1, 2]]


def test_candidates_of_the_descriptors_are_ordered_by_the_cosines_of_the_smoothed() -> None:
    database = np.eye(3, dtype=np.float32)[:2]
    queries = np.array([[0.8, 0.6, 0.0]], np.float32)
    ranking = rank(queries, database, [np.array([1])])
    assert ranking.rows.tolist() == [[0, 1]]

    class Nothing(reranking.FeatureEvidence):
        def of(self, path: Path) -> str:
            return path.name

        def scores(self, query: Any, candidates: Any) -> Any:
            return np.zeros(len(candidates))

    sides = [SimpleNamespace(paths=[Path(f"{n}.jpg") for n in range(count)]) for count in (1, 2)]
    chosen = cast(EvaluationSet, SimpleNamespace(queries=sides[0], database=sides[1]))
    smoothed = np.array([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]], np.float32)  # cosines 0.48 and 0.6
    order, _ = reranking.new_order(
        ranking, chosen, Nothing(RootSift(8), KIND.nearest), 2, queries, smoothed
    )
    assert order.tolist() == [[1, 0]]


@pytest.mark.parametrize(("weighs", "first"), [(True, 0), (False, 1)])
def test_smoothing_chooses_the_candidates_where_it_has_no_part_in_their_order(
    weighs: bool, first: int
) -> None:
    database = np.eye(3, dtype=np.float32)[:2]
    queries = np.array([[0.8, 0.6, 0.0]], np.float32)
    smoothed = np.array([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]], np.float32)  # cosines 0.48 and 0.6

    class Nothing(reranking.FeatureEvidence):
        weighs_cosines = weighs

        def of(self, path: Path) -> None:
            return None

    sides = [SimpleNamespace(paths=[Path(f"{n}.jpg") for n in range(count)]) for count in (1, 2)]
    chosen = cast(
        EvaluationSet,
        SimpleNamespace(
            queries=sides[0], database=sides[1], positives=[np.array([1])], leave_one_out=False
        ),
    )
    mixed = cast(Smoothing, SimpleNamespace(of=lambda rows, places: smoothed))
    found, _ = reranking.ranked(
        queries, database, chosen, mixed, Nothing(RootSift(8), KIND.nearest), 1
    )
    assert found.rows[0, 0] == first
