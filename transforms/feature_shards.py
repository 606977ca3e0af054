"""The local features of one kind that a task reads, two shards at a time."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from vladmap.atlas import layout, storage
from vladmap.features.base import LocalFeatures
from vladmap.features.table import read_features

_COLUMNS = ["image_id", "width", "height", "keypoints", "descriptors"]


class FeatureShards:
    """Shards of `features/` at `paths` in an atlas; `shards` is the shard of each image_id."""

    def __init__(self, root: str, paths: Sequence[str]) -> None:
        self._root = root
        self._files = {layout.shard_of(path): path for path in paths}
        self._loaded: dict[str, pa.Table] = {}
        self.shards: dict[str, str] = {}
        for shard, path in self._files.items():
            ids = storage.read_table(storage.join(root, path), ["image_id"])["image_id"]
            self.shards.update(dict.fromkeys(ids.to_pylist(), shard))

    def of(self, shards: Sequence[str], wanted: set[str]) -> dict[str, LocalFeatures]:
        """Features of the wanted images of some shards; features of other shards leave memory."""
        self._loaded = {
            shard: self._loaded[shard]
            if shard in self._loaded
            else storage.read_table(storage.join(self._root, self._files[shard]), _COLUMNS)
            for shard in sorted(set(shards))
        }
        features: dict[str, LocalFeatures] = {}
        for table in self._loaded.values():
            features |= read_features(table, wanted)
        return features
