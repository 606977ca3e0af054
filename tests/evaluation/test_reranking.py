"""Re-ranking by local features: inliers are weighed together with the cosines of descriptors."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tests.photos.bad_photos import texture
from vladmap.evaluation import reranking
from vladmap.evaluation.evidence import FeatureEvidence, PatchEvidence, evidence
from vladmap.evaluation.sets import Smoothing
from vladmap.features.rootsift import KIND, RootSift
from vladmap.models import InputSize
from vladmap.photos.layouts import EvaluationSet
from vladmap.retrieval.recall import rank

INLIERS = [10.0, 30.0, 75.0]
COSINES = [0.91, 0.7, 0.6]
ORDERS = {
    "features": [2, 0, 1],  # by hand: 0.91 + 0.05, 0.7 + 0.15 and 0.6 + 0.375
    "lighterglue": [0, 2, 1],  # 0.91 + 0.04, 0.7 + 0.12 and 0.6 + 0.3
}


@pytest.mark.parametrize(("way", "kind"), [("features", "xfeat"), ("lighterglue", "sift")])
def test_cosines_and_inliers_add_up(way: str, kind: str) -> None:
    if way == "lighterglue":
        pytest.importorskip("kornia")
    scores, similarity = np.array(INLIERS), np.array(COSINES, np.float32)
    by = evidence(way, kind)
    assert by is not None
    assert by.order(scores, similarity).tolist() == ORDERS[way]


def test_a_candidate_without_evidence_is_the_worst_by_patches_and_has_its_cosine_by_features() -> (
    None
):
    scores, similarity = np.array([np.nan, 0.0, 5.0]), np.array([0.9, 0.8, 0.7], np.float32)
    by_patches, by_features = evidence("rapid", "sift"), evidence("features", "sift")
    assert by_patches is not None
    assert by_features is not None
    assert by_patches.order(scores, similarity).tolist() == [2, 1, 0]
    assert by_features.order(scores, similarity).tolist() == [0, 1, 2]


def test_candidates_compared_by_several_threads_have_the_scores_of_one() -> None:
    walls = [RootSift(64).extract(texture(seed, 160, 120)) for seed in range(4)]
    one, three = (FeatureEvidence(KIND, KIND.nearest, n) for n in (1, 3))
    scores = one.scores(walls[0], walls)
    assert scores[0] > 20 > scores[1:].max()
    assert three.scores(walls[0], walls).tolist() == scores.tolist()


def test_an_unknown_way_to_rerank_is_no_other_one() -> None:
    with pytest.raises(ValueError, match="unknown way to re-rank: 'patches'"):
        evidence("patches", "sift")
    assert evidence("none", "sift") is None


class Computed(reranking.ComputedEvidence):
    """Evidence of photographs that are not there: their names."""

    def __init__(self, weighs: bool = True) -> None:
        by = FeatureEvidence(KIND, KIND.nearest) if weighs else PatchEvidence("rapid")
        super().__init__(by, InputSize(8, 8).target, lambda pixels: (None, 0))

    def of(self, path: Path) -> Any:
        return path.name


def test_each_query_is_ordered_with_the_cosines_of_its_own_candidates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two queries with the same inliers, of which one is sure of its first and one is not."""
    angles = np.array([0.0, 0.1, 1.2])
    database = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    queries = database[[0, 2]]
    ranking = rank(queries, database, [np.array([0]), np.array([2])])
    assert ranking.rows.tolist() == [[0, 1, 2], [2, 1, 0]]

    monkeypatch.setattr(
        FeatureEvidence, "scores", lambda self, query, candidates: np.array([0.0, 40.0, 40.0])
    )
    sides = [SimpleNamespace(paths=[Path(f"{n}.jpg") for n in range(count)]) for count in (2, 3)]
    chosen = cast(EvaluationSet, SimpleNamespace(queries=sides[0], database=sides[1]))
    order, _, _ = reranking.new_order(ranking, chosen, Computed(), 3, queries, database)
    # cos 0, 0.1 and 1.2 are 1, 0.995 and 0.362; cos 0, 1.1 and 1.2 are 1, 0.454 and 0.362.
    assert order.tolist() == [[1, 0, 2], [0, 1, 2]]


def test_candidates_of_the_descriptors_are_ordered_by_the_cosines_of_the_smoothed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = np.eye(3, dtype=np.float32)[:2]
    queries = np.array([[0.8, 0.6, 0.0]], np.float32)
    ranking = rank(queries, database, [np.array([1])])
    assert ranking.rows.tolist() == [[0, 1]]

    monkeypatch.setattr(
        FeatureEvidence, "scores", lambda self, query, candidates: np.zeros(len(candidates))
    )
    sides = [SimpleNamespace(paths=[Path(f"{n}.jpg") for n in range(count)]) for count in (1, 2)]
    chosen = cast(EvaluationSet, SimpleNamespace(queries=sides[0], database=sides[1]))
    smoothed = np.array([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]], np.float32)  # cosines 0.48 and 0.6
    order, _, _ = reranking.new_order(ranking, chosen, Computed(), 2, queries, smoothed)
    assert order.tolist() == [[1, 0]]


@pytest.mark.parametrize(("weighs", "first"), [(True, 0), (False, 1)])
def test_smoothing_chooses_the_candidates_where_it_has_no_part_in_their_order(
    weighs: bool, first: int
) -> None:
    database = np.eye(3, dtype=np.float32)[:2]
    queries = np.array([[0.8, 0.6, 0.0]], np.float32)
    smoothed = np.array([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]], np.float32)  # cosines 0.48 and 0.6

    class Unread(Computed):
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
    ranking, _, _ = reranking.ranked(queries, database, chosen, mixed, Unread(weighs), 1)
    assert ranking.rows[0, 0] == first


@pytest.mark.parametrize(
    ("way", "features", "kind"),
    [("features", "sift", "sift"), ("features", "xfeat", "xfeat"), ("sift", "xfeat", "sift")],
)
def test_features_means_the_kind_that_is_chosen_as_in_a_build(
    way: str, features: str, kind: str
) -> None:
    by = evidence(way, features)
    assert isinstance(by, FeatureEvidence)
    assert by.kind.name == kind
