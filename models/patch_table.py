"""Converts patch descriptors to and from tables of `patches/`: one row an image, int8."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vladmap.models.aggregations.patches import patch_centres
from vladmap.retrieval.stored_patches import StoredPatches
from vladmap.schemas import tables

PatchTable = dict[str, StoredPatches]


def patch_table(
    rows: Iterable[tuple[str, StoredPatches]], size: int, stride: int, model: str, fingerprint: str
) -> pa.Table:
    """Rows of (image_id, its patches of one size), sorted by image_id: schemas.tables.patches."""
    ordered = sorted(rows, key=lambda row: row[0])
    small = [patches for _, patches in ordered]
    dimension = small[0].descriptors[0].shape[2] if small else 0
    schema = tables.patches(model, fingerprint, dimension, size, stride)
    grids = np.array([_grid(patches.centres[0]) for patches in small], np.int32).reshape(-1, 2)
    ends = np.concatenate([[0], np.cumsum(grids.prod(axis=1, dtype=np.int64))])
    return pa.Table.from_arrays(
        [
            pa.array([image for image, _ in ordered], pa.string()),
            pa.array(grids[:, 0]),
            pa.array(grids[:, 1]),
            # From whole arrays: a value at a time took as long as all else that writes a shard.
            pa.Array.from_buffers(
                pa.large_binary(),
                len(small),
                [
                    None,
                    pa.py_buffer(dimension * ends),
                    pa.py_buffer(_joined([patches.descriptors[0] for patches in small], np.int8)),
                ],
            ),
            pa.ListArray.from_arrays(
                pa.array(ends, pa.int32()),
                pa.array(_joined([patches.scales[0] for patches in small], np.float32)),
            ),
        ],
        schema=schema,
    )


def read_patches(table: pa.Table) -> PatchTable:
    """The patches (N = 1) of each image, by image_id."""
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    dimension, size, stride = (
        int(metadata[f"vladmap:{key}"]) for key in ("dimension", "patch_size", "stride_px")
    )
    patches = {}
    for row in range(table.num_rows):
        image, rows, columns = (
            table[name][row].as_py() for name in ("image_id", "rows", "columns")
        )
        descriptors = np.frombuffer(table["descriptors"][row].as_buffer(), np.int8)
        scales = table["scales"][row].values.to_numpy(zero_copy_only=False)
        centres = patch_centres(rows + size - 1, columns + size - 1, size, stride).numpy()
        patches[image] = StoredPatches(
            [descriptors.reshape(1, -1, dimension)], [centres], [scales.reshape(1, -1)]
        )
    return patches


def _joined(parts: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *(part.ravel() for part in parts)])


def _grid(centres: NDArray[np.float32]) -> tuple[int, int]:
    """Rows and columns of patches, which are in row order."""
    columns = int(np.count_nonzero(centres[:, 1] == centres[0, 1]))
    return len(centres) // columns, columns
