"""Evidence for re-ranking: scores of a query's candidates, and the order that follows from them.

Builds and evaluations share this implementation. A build reads what is compared from the atlas
(`transforms.rerank`), an evaluation computes it from photographs (`evaluation.reranking`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from vladmap.features.base import FeatureKind, LocalFeatures, Matcher
from vladmap.features.names import NEAREST, RERANKING_BY_FEATURES, reranking_by
from vladmap.features.registry import feature_kind, load_matcher
from vladmap.models.memory import one_thread_a_call
from vladmap.retrieval.names import BY_PATCHES
from vladmap.retrieval.rerank import by_inliers, scores_of_each
from vladmap.retrieval.stored_patches import StoredPatches

# Measured: with a thousand features per image the order is as good as with all, in a tenth of the
# time.
FEATURES_COMPARED = 1024

_ERROR_PX = 3.0  # for a long side of 800 pixels; in proportion to the long side
_ERROR_LONG_SIDE_PX = 800

Item = TypeVar("Item")


class Evidence(ABC, Generic[Item]):
    """Compares images by an `Item` that was computed from each: local features, or patches."""

    weighs_cosines: ClassVar[bool]
    """Whether the order depends on the cosines of descriptors, too."""

    @abstractmethod
    def scores(self, query: Item, candidates: Sequence[Item]) -> NDArray[np.float64]:
        """(C,): the score of each candidate, larger being better."""

    @abstractmethod
    def order(
        self, scores: NDArray[np.float64], similarity: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """(C,): the positions of one query's candidates in their new order, best first.

        `scores` (C,) are those of `scores`, `similarity` (C,) the cosines of their descriptors, in
        descending order. A candidate without an item has the score NaN and counts as the worst.
        """


class FeatureEvidence(Evidence[LocalFeatures]):
    """The inliers of a fundamental matrix over the matches of local features.

    `threads` threads compare a query with its candidates.
    """

    weighs_cosines = True

    def __init__(self, kind: FeatureKind, matcher: Matcher, threads: int = 1) -> None:
        self.kind, self._matcher = kind, matcher
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def scores(
        self, query: LocalFeatures, candidates: Sequence[LocalFeatures]
    ) -> NDArray[np.float64]:
        """(C,): the inliers of each candidate, among the FEATURES_COMPARED strongest features."""
        # Only whoever compares features needs pycolmap.
        from vladmap.mapping.two_view import fundamental_inliers

        ours = self.kind.strongest(query, FEATURES_COMPARED)

        def inliers(candidate: LocalFeatures) -> int:
            theirs = self.kind.strongest(candidate, FEATURES_COMPARED)
            error = max(_error_px(ours), _error_px(theirs))
            return fundamental_inliers(ours, theirs, self._matcher.match(ours, theirs), error)

        counts = self._pool.map(inliers, candidates) if self._pool else map(inliers, candidates)
        return np.array(list(counts), np.float64)

    def order(
        self, scores: NDArray[np.float64], similarity: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        inliers = np.nan_to_num(scores, nan=0.0).astype(np.int64)
        return by_inliers(inliers, similarity, self._matcher.inliers_a_cosine)


class PatchEvidence(Evidence[StoredPatches]):
    """Patches of one size, by `method`: the rapid score, or the inliers of a homography.

    They are compared on `device`.
    """

    weighs_cosines = False

    def __init__(self, method: str, device: str = "cpu") -> None:
        self._method, self._device = method, device

    def scores(
        self, query: StoredPatches, candidates: Sequence[StoredPatches]
    ) -> NDArray[np.float64]:
        return scores_of_each(query, candidates, self._method, self._device)

    def order(
        self, scores: NDArray[np.float64], similarity: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        return np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")


def evidence(
    way: str, features: str, threads: int = 1, device: str = "cpu"
) -> FeatureEvidence | PatchEvidence | None:
    """The evidence of the way to re-rank called `way`; None without re-ranking.

    `features` is the kind of local features that `features.names.reranking_by` chooses by. Networks
    that match them, and what compares patches, run on `device`. Raises UserError where a package is
    missing, ValueError for a way that is not known.
    """
    if way == "none":
        return None
    if way in BY_PATCHES:
        return PatchEvidence(way, device)
    if way not in RERANKING_BY_FEATURES:
        raise ValueError(f"unknown way to re-rank: {way!r}")
    kind, matcher = reranking_by(way, features)
    if matcher != NEAREST:
        one_thread_a_call()  # sums, and so matches, do not depend on how many threads there are
    return FeatureEvidence(feature_kind(kind), load_matcher(kind, matcher, device), threads)


def _error_px(features: LocalFeatures) -> float:
    """The distance in pixels by which an inlier may miss its epipolar line."""
    if features.size is None:
        raise ValueError("features of an image of unknown size cannot be compared in pixels")
    return _ERROR_PX * max(1.0, max(features.size) / _ERROR_LONG_SIDE_PX)
