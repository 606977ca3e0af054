"""Global descriptors as a table of `descriptors/`, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

ImageIds: TypeAlias = pa.ChunkedArray | pa.Array
"""(N,) image ids as Arrow's strings, which take 36 bytes each; those of Python take 90."""


def descriptor_table(
    ids: Sequence[str], vectors: Sequence[NDArray[np.float32]], schema: pa.Schema
) -> pa.Table:
    """A table of schemas.tables.descriptors: N image ids and N vectors (D,), sorted by image_id."""
    dimension = schema.field("descriptor").type.list_size
    flat = np.concatenate(vectors) if vectors else np.zeros(0, np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), dimension)
    table = pa.Table.from_arrays([pa.array(ids, pa.string()), column], schema=schema)
    return table.sort_by("image_id")


def descriptor_matrix(table: pa.Table) -> NDArray[np.float32]:
    """(N, D) float32 of a descriptor table."""
    column = table["descriptor"].combine_chunks()
    dimension = column.type.list_size
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat.reshape(-1, dimension), dtype=np.float32)


def image_columns(
    descriptors: pa.Table, images: pa.Table, names: Sequence[str]
) -> list[NDArray[np.float64]]:
    """Columns (N,) float64 of `images` for the N rows of `descriptors`, NaN where null.

    Each row's image is among `images`, in any order.
    """
    ordered = images.sort_by("image_id")
    rows = np.searchsorted(ordered["image_id"].to_numpy(), descriptors["image_id"].to_numpy())
    return [ordered[name].to_numpy().astype(np.float64)[rows] for name in names]


def fair_sample(ids: ImageIds, count: int) -> NDArray[np.int64]:
    """Rows, ascending, of the `count` lowest image ids: ids are digests, so the sample is fair."""
    table = pa.table({"image_id": ids})
    lowest = pc.select_k_unstable(table, min(count, len(ids)), [("image_id", "ascending")])
    rows: NDArray[np.int64] = np.sort(lowest.to_numpy().astype(np.int64))
    return rows
