"""Local features of an atlas, read shard by shard."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from vladmap.atlas import layout
from vladmap.atlas.committed import CommittedFiles
from vladmap.atlas.errors import NotInAtlas

if TYPE_CHECKING:
    from vladmap.features.base import LocalFeatures

_COLUMNS = ("image_id", "width", "height", "keypoints", "descriptors")


class StoredFeatures:
    """Local features of one kind by image. Nothing is read before it is asked for.

    `features[image_id]` gives a LocalFeatures: `keypoints` (n, 4) float32 (x, y, scale in pixels of
    the full-size upright image, with COLMAP's origin, and the orientation in radians) and
    `descriptors` (n, D). The `keep` shards that were used last stay in memory.
    """

    def __init__(self, files: CommittedFiles, kind: str, keep: int = 1) -> None:
        self.kind, self.keep = kind, keep
        self._files, self._stage = files, layout.features_ledger(kind)
        self._kept: dict[str, dict[str, LocalFeatures]] = {}  # the one used last at the end
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<{self.kind} features of {len(self)} images>"

    def __len__(self) -> int:
        return sum(file.rows for _, file in self._files.files(self._stage, layout.FEATURES))

    def __iter__(self) -> Iterator[str]:
        return iter(self._shard_of)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._shard_of

    def __getitem__(self, image_id: str) -> LocalFeatures:
        if image_id not in self._shard_of:
            raise NotInAtlas(f"{self._files.root}: {image_id} has no {self.kind} features")
        shard, path = self._shard_of[image_id]
        with self._lock:
            kept = self._kept.pop(shard, None) or self._read(shard, path)
            self._kept[shard] = kept
            while len(self._kept) > self.keep:
                del self._kept[next(iter(self._kept))]
        return kept[image_id]

    def shards(self) -> Iterator[tuple[str, dict[str, LocalFeatures]]]:
        """(shard, its features by image id), one shard after the other."""
        for shard, file in self._files.files(self._stage, layout.FEATURES):
            yield shard, self._read(shard, file.path)

    @cached_property
    def _shard_of(self) -> dict[str, tuple[str, str]]:
        """(shard, file) of each image id."""
        return {
            image: (shard, file.path)
            for shard, file in self._files.files(self._stage, layout.FEATURES)
            for image in self._files.table(self._stage, shard, file.path, ["image_id"])[
                "image_id"
            ].to_pylist()
        }

    def _read(self, shard: str, path: str) -> dict[str, LocalFeatures]:
        from vladmap.features.table import read_features

        return read_features(self._files.table(self._stage, shard, path, _COLUMNS))
