"""Point geometries of a manifest -> its columns latitude, longitude and altitude."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import shapely

from vladmap.photos.manifests.columns import canonical_name
from vladmap.schemas.rejects import UserError

GEOMETRY = "geometry"

CRS84 = "OGC:CRS84"

NOT_POINTS = "{name}: every geometry of a manifest is a point with two or three coordinates"


def with_points(name: str, table: pa.Table, column: str, shapes: np.ndarray) -> pa.Table:
    """The table with latitude and longitude (and altitude) from points, where it has none."""
    present = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    kinds = shapely.get_type_id(shapes[present])
    if (kinds != shapely.GeometryType.POINT).any():
        raise UserError(NOT_POINTS.format(name=name))
    coordinates = np.full((len(shapes), 3), np.nan)
    coordinates[present] = shapely.get_coordinates(shapes[present], include_z=True)
    if column in table.column_names:
        table = table.drop_columns([column])
    present_columns = {canonical_name(each) for each in table.column_names}
    for target, values in (
        ("longitude", coordinates[:, 0]),
        ("latitude", coordinates[:, 1]),
        ("altitude", coordinates[:, 2]),
    ):
        if target not in present_columns:
            table = table.append_column(target, pa.array(values, from_pandas=True))
    return table


def geometries(name: str, column: pa.ChunkedArray) -> np.ndarray:
    """Geometries of a bare `geometry` column: WKB (binary) or WKT (text), taken for CRS84."""
    kind = column.type
    values = column.to_numpy(zero_copy_only=False)
    values = np.where(pd.isna(values), None, values)
    try:
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return shapely.from_wkb(values)
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return shapely.from_wkt(values)
    except shapely.errors.GEOSException as error:
        raise UserError(f"{name}: a geometry does not parse: {error}") from error
    raise UserError(f"{name}: geometry is {kind}; it has to be WKB or WKT points")
