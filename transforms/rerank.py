"""Re-ranking of global candidates by evidence that was computed once an image.

Evidence is read a shard at a time and never shuffled: a shard's queries are scored against the
candidates that lie in one other shard, then against those in the next.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vladmap.atlas import storage
from vladmap.features.base import LocalFeatures
from vladmap.features.names import NEAREST, RERANKING_BY_FEATURES, reranking_by
from vladmap.features.registry import feature_kind, load_matcher
from vladmap.features.table import read_features
from vladmap.mapping.two_view import fundamental_inliers
from vladmap.models.memory import one_thread_a_call
from vladmap.models.patch_table import PatchTable, read_patches
from vladmap.retrieval.names import BY_PATCHES
from vladmap.retrieval.rerank import by_inliers, scores_of_each

# Measured: a thousand of an image's features order candidates as well as all, in a tenth the time.
_FEATURES = 1024
_ERROR_PX = 3.0  # at a long side of 800 pixels, on larger photographs in proportion
_ERROR_LONG_SIDE_PX = 800


@dataclass(frozen=True)
class RerankSettings:
    """`none`, or what puts each query's best `candidates` in order: a method of `retrieval.rerank`.

    `features` are the kind of local features, where their matches order. `evidence` is every shard
    that has patches or features, as (name, path, identity), and `stage` the ledger it stands in.
    """

    method: str = "none"
    candidates: int = 0
    features: str = ""
    stage: str = ""
    evidence: tuple[tuple[str, str, str], ...] = ()


class Evidence(ABC):
    """Scores of pairs between two shards, and the order that they put candidates into."""

    def __init__(self, root: str, settings: RerankSettings) -> None:
        self._root, self.settings = root, settings
        self._paths = {shard: path for shard, path, _ in settings.evidence}
        self._own: tuple[str, Any] = ("", {})

    def scores(self, shard: str, other: str, pairs: list[tuple[str, str]]) -> list[float]:
        """The score of each (image of `shard`, image of `other`), 0 where either has no evidence.

        The evidence of `shard` is kept for the next call, that of `other` let go.
        """
        if self._own[0] != shard:
            self._own = (shard, self._load(shard))
        ours = self._own[1]
        theirs = ours if other == shard else self._load(other)
        by_query: dict[str, list[str]] = defaultdict(list)
        for query, candidate in pairs:
            if query in ours and candidate in theirs:
                by_query[query].append(candidate)
        found = {
            (query, candidate): score
            for query, candidates in by_query.items()
            for candidate, score in zip(
                candidates,
                self._query(ours[query], [theirs[candidate] for candidate in candidates]),
                strict=True,
            )
        }
        return [found.get(pair, 0.0) for pair in pairs]

    def inputs(self, shards: set[str]) -> dict[str, str]:
        """What was read, for the ledger."""
        return {
            f"{self.settings.stage}/{shard}": content
            for shard, _, content in self.settings.evidence
            if shard in shards
        }

    def _load(self, shard: str) -> dict[str, Any]:
        if shard not in self._paths:
            return {}
        return self._read(storage.join(self._root, self._paths[shard]))

    @abstractmethod
    def order(
        self, scores: NDArray[np.float64], similarity: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Positions of one query's candidates, best first, by these scores and the cosines of
        descriptors, by which they come best first."""

    @abstractmethod
    def _read(self, path: str) -> dict[str, Any]: ...

    @abstractmethod
    def _query(self, query: Any, candidates: list[Any]) -> list[float]: ...


class FeatureEvidence(Evidence):
    """The inliers of a fundamental matrix over the matches of local features."""

    def __init__(self, root: str, settings: RerankSettings) -> None:
        super().__init__(root, settings)
        _, matcher = reranking_by(settings.method, settings.features)
        if matcher != NEAREST:
            one_thread_a_call()  # sums, and so matches, do not depend on how many threads there are
        self._kind = feature_kind(settings.features)
        self._matcher = load_matcher(settings.features, matcher)

    def order(
        self, scores: NDArray[np.float64], similarity: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        return by_inliers(scores.astype(np.int64), similarity, self._matcher.inliers_a_cosine)

    def _read(self, path: str) -> dict[str, tuple[LocalFeatures, float]]:
        table = storage.read_table(path)
        found = read_features(table)
        sides = np.maximum(table["width"].to_numpy(), table["height"].to_numpy())
        errors = _ERROR_PX * np.maximum(1, sides / _ERROR_LONG_SIDE_PX)
        ids = table["image_id"].to_pylist()
        return {
            image: (self._kind.strongest(found[image], _FEATURES), float(error))
            for image, error in zip(ids, errors, strict=True)
        }

    def _query(self, query: Any, candidates: list[Any]) -> list[float]:
        ours, error = query
        return [
            float(self._inliers(ours, theirs, max(error, other))) for theirs, other in candidates
        ]

    def _inliers(self, a: LocalFeatures, b: LocalFeatures, error_px: float) -> int:
        return fundamental_inliers(a, b, self._matcher.match(a, b), error_px)


class PatchEvidence(Evidence):
    """The score of patches; of images whose grids differ too."""

    def order(
        self, scores: NDArray[np.float64], similarity: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        return np.argsort(-scores, kind="stable")

    def _read(self, path: str) -> PatchTable:
        return read_patches(storage.read_table(path))

    def _query(self, query: Any, candidates: list[Any]) -> list[float]:
        return scores_of_each(query, candidates, self.settings.method).tolist()


def evidence(root: str, settings: RerankSettings) -> Evidence | None:
    """The evidence that `settings` ask for; None where the order by descriptor stands."""
    if settings.method == "none":
        return None
    if settings.method in RERANKING_BY_FEATURES:
        return FeatureEvidence(root, settings)
    if settings.method in BY_PATCHES:
        return PatchEvidence(root, settings)
    raise ValueError(f"unknown way to re-rank: {settings.method!r}")
