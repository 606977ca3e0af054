"""Re-ranking of candidates by stored evidence: patches or local features.

Evidence is read one shard at a time and never shuffled: the queries of a shard are scored against
the candidates in one other shard, then against those in the next.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vladmap.atlas import storage
from vladmap.atlas.shard_lists import read_shard_list
from vladmap.schemas.records import FileRef

if TYPE_CHECKING:
    from vladmap.evaluation.evidence import Evidence


@dataclass(frozen=True)
class RerankSettings:
    """How the best `candidates` of each query are re-ranked, by a way of `evaluation.evidence`.

    `features` is the kind of local features, if these are matched; a network that matches them runs
    on `device`. `evidence` is the list
    (atlas.shard_lists) of every shard that has patches or features, with the path and identity of
    these, and `stage` the ledger it stands in.
    """

    method: str = "none"
    candidates: int = 0
    features: str = ""
    stage: str = ""
    evidence: FileRef | None = None
    device: str = "cpu"


class StoredEvidence:
    """Scores of pairs between two shards of an atlas, by the evidence stored in it."""

    def __init__(self, root: str, settings: RerankSettings, compare: Evidence[Any]) -> None:
        self._root, self._settings, self._compare = root, settings, compare
        assert settings.evidence is not None
        listed = read_shard_list(root, settings.evidence)
        self._paths = {each.shard: each.path for each in listed}
        self._content = {each.shard: each.content for each in listed}
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
        """What was read, for the ledger."""
        stage = self._settings.stage
        return {f"{stage}/{shard}": self._content[shard] for shard in shards & self._paths.keys()}

    def _load(self, shard: str) -> Mapping[str, Any]:
        """The evidence of the images of a shard, by image_id."""
        if shard not in self._paths:
            return {}
        from vladmap.evaluation.evidence import FEATURES_COMPARED, FeatureEvidence
        from vladmap.features.table import read_features
        from vladmap.models.patch_table import read_patches

        table = storage.read_table(storage.join(self._root, self._paths[shard]))
        if not isinstance(self._compare, FeatureEvidence):
            return read_patches(table)
        strongest = self._compare.kind.strongest
        return {
            image: strongest(features, FEATURES_COMPARED)
            for image, features in read_features(table).items()
        }


def stored_evidence(root: str, settings: RerankSettings) -> StoredEvidence | None:
    """The evidence that `settings` ask for; None where the order by descriptor stands."""
    if settings.method == "none":
        return None
    # Brings torch and COLMAP, which pairs by descriptor do without.
    from vladmap.evaluation.evidence import evidence

    compare = evidence(settings.method, settings.features, device=settings.device)
    return None if compare is None else StoredEvidence(root, settings, compare)
