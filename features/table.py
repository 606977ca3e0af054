"""Local features as a table of `features/`, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vladmap.features.base import FeatureKind, LocalFeatures
from vladmap.schemas import tables


def feature_table(
    rows: Iterable[tuple[str, int, int, LocalFeatures]], kind: FeatureKind
) -> pa.Table:
    """Rows of (image_id, width, height, features), sorted by image_id.

    The result has the schema `schemas.tables.features` of the kind.
    """
    ordered = sorted(rows, key=lambda row: row[0])
    dtype = pa.from_numpy_dtype(kind.dtype)
    schema = tables.features(kind.name, kind.dimension, dtype)
    features = [row[3] for row in ordered]
    return pa.Table.from_arrays(
        [
            pa.array([row[0] for row in ordered], pa.string()),
            pa.array([row[1] for row in ordered], pa.int32()),
            pa.array([row[2] for row in ordered], pa.int32()),
            _nested([item.keypoints for item in features], pa.float32(), 4),
            _nested([item.descriptors for item in features], dtype, kind.dimension),
        ],
        schema=schema,
    )


def _nested(blocks: list[NDArray[np.generic]], dtype: pa.DataType, width: int) -> pa.ListArray:
    """A list column with one block of (n, `width`) numbers in each row."""
    offsets = np.cumsum([0, *(len(block) for block in blocks)]).astype(np.int32)
    flat = np.concatenate([block.ravel() for block in blocks]) if blocks else np.zeros(0)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(flat.astype(dtype.to_pandas_dtype())), width)
    return pa.ListArray.from_arrays(pa.array(offsets), rows)


def read_features(table: pa.Table, wanted: set[str] | None = None) -> dict[str, LocalFeatures]:
    """Features by image_id, of the images `wanted`, or of all.

    Where the table was read without its column of descriptors, the features have none; without
    width and height, their size is None.
    """
    keypoints = _Blocks(table["keypoints"])
    descriptors = _Blocks(table["descriptors"]) if "descriptors" in table.column_names else None
    none = np.zeros((0, 0), np.uint8)
    sizes: list[tuple[int, int]] = []
    if {"width", "height"} <= set(table.column_names):
        sides = (table[side].to_pylist() for side in ("width", "height"))
        sizes = list(zip(*sides, strict=True))
    return {
        image: LocalFeatures(
            keypoints[row], descriptors[row] if descriptors else none, sizes[row] if sizes else None
        )
        for row, image in enumerate(table["image_id"].to_pylist())
        if wanted is None or image in wanted
    }


class _Blocks:
    """Random access to the (n, width) block of each row of a nested column, without copies."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        joined = column.combine_chunks()
        lists = joined.chunk(0) if isinstance(joined, pa.ChunkedArray) else joined
        self._offsets = lists.offsets.to_numpy()
        values = lists.values
        flat = values.values.to_numpy(zero_copy_only=False)
        self._rows = flat.reshape(-1, values.type.list_size)

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self._rows[self._offsets[row] : self._offsets[row + 1]]
