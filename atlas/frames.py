"""Arrow tables as frames: of GeoPandas if they have a geometry, else of pandas."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    import geopandas
    import pandas as pd

_CRS = "OGC:CRS84"
_GEOMETRY, _COVERING = "geometry", "bbox"
_MATRICES = ("fundamental", "essential", "homography")


def joined(parts: Iterable[pa.Table], schema: pa.Schema, columns: Iterable[str] | None) -> pa.Table:
    """The concatenation of tables of one schema; an empty table if there are none.

    Columns that may be null and that a part does not have, because an older version wrote it, are
    null.
    """
    chosen = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    tables = [chosen.empty_table(), *(_completed(part, chosen).cast(chosen) for part in parts)]
    return pa.concat_tables(tables).replace_schema_metadata(None)


def _completed(part: pa.Table, schema: pa.Schema) -> pa.Table:
    for field in schema:
        if field.nullable and field.name not in part.column_names:
            part = part.append_column(field, pa.nulls(part.num_rows, field.type))
    known = [name for name in schema.names if name in part.column_names]
    return part.select(known) if len(known) == len(schema) else part


def frame(table: pa.Table) -> pd.DataFrame | geopandas.GeoDataFrame:
    """A table as a frame with a fresh index.

    Its `geometry` becomes points in longitude and latitude (OGC:CRS84); bounding boxes, which hold
    the same information, are left out. Lists of pairs of indices become (n, 2) uint32 arrays,
    matrices (3, 3) float64 arrays or None.
    """
    if _COVERING in table.column_names and _GEOMETRY in table.column_names:
        table = table.drop_columns(_COVERING)
    nested = {name: table[name] for name in table.column_names if _is_nested(table[name].type)}
    made = table.drop_columns([*nested, *_geometry_of(table)]).to_pandas()
    for name, column in nested.items():
        made[name] = _objects(_matrices(column) if name in _MATRICES else _pairs(column))
    if _GEOMETRY in table.column_names:
        made = _with_geometry(made, table[_GEOMETRY])
    return made[table.column_names]


def _geometry_of(table: pa.Table) -> list[str]:
    return [_GEOMETRY] if _GEOMETRY in table.column_names else []


def _with_geometry(made: pd.DataFrame, column: pa.ChunkedArray) -> geopandas.GeoDataFrame:
    import geopandas
    import shapely

    points = shapely.from_wkb(np.array(column.to_pylist(), dtype=object))
    return geopandas.GeoDataFrame(made, geometry=points, crs=_CRS)


def _is_nested(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) and not pa.types.is_string(kind.value_type)


def _objects(values: list[Any]) -> NDArray[np.object_]:
    """A column of objects; pandas would stack arrays of equal lengths into one array."""
    column = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        column[row] = value
    return column


def _matrices(column: pa.ChunkedArray) -> list[NDArray[np.float64] | None]:
    return [None if row is None else np.array(row).reshape(3, 3) for row in column.to_pylist()]


def _pairs(column: pa.ChunkedArray) -> list[NDArray[np.generic]]:
    lists = column.combine_chunks()
    offsets = lists.offsets.to_numpy()
    flat = lists.values.flatten().to_numpy(zero_copy_only=False).reshape(-1, 2)
    return [flat[start:end] for start, end in itertools.pairwise(offsets)]
