"""The bytes of a CSV, Parquet, GeoParquet or GeoJSON manifest -> a table with its columns."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pyproj
import shapely

from vladmap.photos.manifests.points import CRS84, GEOMETRY, NOT_POINTS, with_points
from vladmap.schemas.rejects import UserError


def read_csv(data: bytes) -> pa.Table:
    """All columns as text: what a column means is decided by its name, not by its first rows."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    head = data.split(b"\n", 1)[0]
    delimiter = max((b",", b";", b"\t"), key=head.count).decode()
    names = pyarrow.csv.open_csv(
        io.BytesIO(head + b"\n"), parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter)
    ).schema.names
    return pyarrow.csv.read_csv(
        io.BytesIO(data),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True
        ),
    )


def read_parquet(name: str, data: bytes) -> pa.Table:
    table = pyarrow.parquet.read_table(io.BytesIO(data))
    if b"geo" not in (table.schema.metadata or {}):
        return table
    frame = geopandas.read_parquet(io.BytesIO(data))
    crs = frame.crs
    if crs is None:
        raise UserError(f"{name}: the geometry has no reference system; write it with one")
    points = frame.geometry
    if not crs.equals(CRS84):
        points = points.to_crs(CRS84)
    return with_points(name, table, points.name, np.asarray(points.array))


def read_geojson(name: str, data: bytes) -> pa.Table:
    record = json.loads(data)
    features = record.get("features") if isinstance(record, dict) else None
    if not isinstance(features, list) or not all(isinstance(each, dict) for each in features):
        raise UserError(f"{name}: a GeoJSON manifest is a FeatureCollection")
    rows = [each.get("properties") or {} for each in features]
    if not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{name}: the properties of a GeoJSON feature are an object")
    keys = dict.fromkeys(key for row in rows for key in row)
    # As text where the types are mixed: `_conform` reads numbers out of it.
    columns = {key: _column([row.get(key) for row in rows]) for key in keys}
    table = pa.table(columns) if columns else pa.table({"": pa.nulls(len(rows))})
    shapes = _geojson_points(name, [each.get("geometry") for each in features])
    crs = _geojson_crs(name, record)
    if not crs.equals(CRS84):
        shapes = np.asarray(geopandas.GeoSeries(shapes, crs=crs).to_crs(CRS84).array)
    return with_points(name, table, GEOMETRY, shapes)


def _geojson_points(name: str, geometries: list[Any]) -> np.ndarray:
    coordinates = np.full((len(geometries), 3), np.nan)
    present = np.array([geometry is not None for geometry in geometries], dtype=bool)
    try:
        points = [each["coordinates"] for each in geometries if each is not None]
        kinds = {each["type"] for each in geometries if each is not None}
        if kinds - {"Point"} or not {len(point) for point in points} <= {2, 3}:
            raise ValueError
        coordinates[present] = [[*point, np.nan][:3] for point in points] or np.empty((0, 3))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(NOT_POINTS.format(name=name)) from error
    shapes = np.full(len(geometries), None, dtype=object)
    # A height of NaN would make the projection give up the whole point.
    solid = present & ~np.isnan(coordinates[:, 2])
    shapes[solid] = shapely.points(coordinates[solid])
    shapes[present & ~solid] = shapely.points(coordinates[present & ~solid, :2])
    return shapes


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except pa.ArrowException:
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def _geojson_crs(name: str, record: Mapping[str, Any]) -> Any:
    """The `crs` member of GeoJSON 2008; RFC 7946 dropped it and always means CRS84."""
    crs = record.get("crs")
    if crs is None:
        return pyproj.CRS.from_user_input(CRS84)
    try:
        return pyproj.CRS.from_user_input(crs["properties"]["name"])
    except (KeyError, TypeError, pyproj.exceptions.CRSError) as error:
        raise UserError(f"{name}: unknown coordinate reference system {crs!r}") from error
