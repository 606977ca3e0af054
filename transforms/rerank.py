"""Re-ranking of candidates by stored evidence: patches or local features.

Evidence is read one shard at a time and never shuffled: the queries of a shard are scored against
the candidates in one other shard, then against those in the next.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vladmap.atlas import storage
from vladmap.evaluation.evidence import FEATURES_COMPARED, Evidence, FeatureEvidence, evidence
from vladmap.features.table import read_features
from vladmap.models.patch_table import read_patches


@dataclass(frozen=True)
class RerankSettings:
    """How the best `candidates` of each query are re-ranked, by a way of `evaluation.evidence`.

    `features` is the kind of local features, if these are matched; a network that matches them
    runs on `device`. `evidence` lists every shard of patches or features as (name, path, identity),
    and `stage` is their ledger.
    """

    method: str = "none"
    candidates: int = 0
    features: str = ""
    stage: str = ""
    evidence: tuple[tuple[str, str, str], ...] = ()
    device: str = "cpu"


class StoredEvidence:
    """Scores of pairs between two shards of an atlas, by the evidence stored in it."""

    def __init__(self, root: str, settings: RerankSettings, compare: Evidence[Any]) -> None:
        self._root, self._settings, self._compare = root, settings, compare
        self._paths = {shard: path for shard, path, _ in settings.evidence}
        self._own: tuple[str, Mapping[str, Any]] = ("", {})

    def scores(self, shard: str, other: str, pairs: list[tuple[str, str]]) -> list[float]:
        """The score of each (image of `shard`, image of `other`), 0 where either has no evidence.

        The evidence of `shard` stays in memory for the next call, that of `other` does not.
        """
        if self._own[0] != shard:
            self._own = (shard, self._load(shard))
        ours = self._own[1]
        theirs = ours if other == shard else self._load(other)
        by_query: dict[str, list[str]] = defaultdict(list)
        for query, candidate in pairs:
            if query in ours and candidate in theirs:
                by_query[query].append(candidate)
        scores: dict[tuple[str, str], float] = {}
        for query, candidates in by_query.items():
            items = [theirs[candidate] for candidate in candidates]
            of_query = self._compare.scores(ours[query], items).tolist()
            scores |= zip([(query, one) for one in candidates], of_query, strict=True)
        return [scores.get(pair, 0.0) for pair in pairs]

    def order(
        self, scores: NDArray[np.float64], similarity: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """See `Evidence.order`."""
        return self._compare.order(scores, similarity)

    def inputs(self, shards: set[str]) -> dict[str, str]:
        """The inputs of a task that read evidence of these shards, for the ledger."""
        return {
            f"{self._settings.stage}/{shard}": content
            for shard, _, content in self._settings.evidence
            if shard in shards
        }

    def _load(self, shard: str) -> Mapping[str, Any]:
        """The evidence of the images of a shard, by image_id."""
        if shard not in self._paths:
            return {}
        table = storage.read_table(storage.join(self._root, self._paths[shard]))
        if not isinstance(self._compare, FeatureEvidence):
            return read_patches(table)
        strongest = self._compare.kind.strongest
        return {
            image: strongest(features, FEATURES_COMPARED)
            for image, features in read_features(table).items()
        }


def stored_evidence(root: str, settings: RerankSettings) -> StoredEvidence | None:
    """The evidence that `settings` name; None without re-ranking."""
    compare = evidence(settings.method, settings.features, device=settings.device)
    return None if compare is None else StoredEvidence(root, settings, compare)
