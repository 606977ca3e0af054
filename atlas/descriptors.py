"""Global descriptors of an atlas, read shard by shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vladmap.atlas import layout
from vladmap.atlas.committed import CommittedFiles
from vladmap.atlas.errors import NotInAtlas
from vladmap.retrieval.descriptors import descriptor_matrix
from vladmap.schemas.records import FileRef

_SHOWN = 3


class DescriptorShard(NamedTuple):
    """A part of the descriptors: `image_ids` (N,) str, sorted, and `vectors` (N, D) float32."""

    shard: str
    image_ids: NDArray[np.str_]
    vectors: NDArray[np.float32]


class Descriptors:
    """The global descriptors of all images by one model: unit vectors, their product a cosine.

    They are read on demand: `shards()` holds one shard in memory at a time, `vectors` all of them.
    Exact duplicates of a photograph have no descriptor of their own.
    """

    def __init__(self, files: CommittedFiles, model: str) -> None:
        self.model = model
        self._files, self._stage = files, layout.describe_ledger(model)

    def __repr__(self) -> str:
        return f"<{len(self)} descriptors of {self.dimension} numbers by {self.model}>"

    def __len__(self) -> int:
        return sum(file.rows for _, file in self._committed())

    def _committed(self) -> list[tuple[str, FileRef]]:
        return self._files.files(self._stage, layout.DESCRIPTORS)

    @cached_property
    def _facts(self) -> dict[str, str]:
        shard, file = self._committed()[0]
        table = self._files.table(self._stage, shard, file.path, [])
        return {key.decode(): value.decode() for key, value in table.schema.metadata.items()}

    @property
    def dimension(self) -> int:
        """The dimension of a descriptor."""
        return int(self._facts["vladmap:dimension"])

    @property
    def fingerprint(self) -> str:
        """Digest of the model with its weights: descriptors of two models are not comparable."""
        return self._facts["vladmap:model_fingerprint"]

    def shards(self) -> Iterator[DescriptorShard]:
        """One shard after the other, in the order of their names."""
        for shard, file in self._committed():
            table = self._files.table(self._stage, shard, file.path)
            yield DescriptorShard(shard, _ids(table), descriptor_matrix(table))

    @cached_property
    def image_ids(self) -> NDArray[np.str_]:
        """(N,) str: the image of each row of `vectors`."""
        parts = list(self._files.tables(self._stage, layout.DESCRIPTORS, ["image_id"]))
        return np.concatenate([np.zeros(0, "U32"), *map(_ids, parts)])

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """(N, D) float32, unit L2 norm. All in memory."""
        return np.concatenate([part.vectors for part in self.shards()])

    def __array__(
        self, dtype: np.dtype[np.generic] | None = None, copy: bool | None = None
    ) -> NDArray[np.generic]:
        return np.array(self.vectors, dtype, copy=copy)

    def of(self, image_ids: Sequence[str]) -> NDArray[np.float32]:
        """(N, D) float32 of these images, in their order; one shard at a time is in memory.

        Raises NotInAtlas if one of them has no descriptor.
        """
        wanted = np.asarray(image_ids, dtype=str)
        result = np.zeros((len(wanted), self.dimension), np.float32)
        known = np.zeros(len(wanted), bool)
        for part in self.shards():
            rows = np.minimum(np.searchsorted(part.image_ids, wanted), len(part.image_ids) - 1)
            here = part.image_ids[rows] == wanted if len(part.image_ids) else known & False
            result[here] = part.vectors[rows[here]]
            known |= here
            if known.all():
                break
        if not known.all():
            missing = wanted[~known].tolist()
            raise NotInAtlas(
                f"{self._files.root}: {len(missing)} images have no descriptor by {self.model}: "
                f"{', '.join(missing[:_SHOWN])}"
            )
        return result


def _ids(table: pa.Table) -> NDArray[np.str_]:
    return table["image_id"].to_numpy().astype(str)
