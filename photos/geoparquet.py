"""Point geometries and the file metadata of GeoParquet 1.1 (https://geoparquet.org)."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import shapely

from vladmap.photos.positions import valid_positions

Column = Sequence[float | None] | np.ndarray


_TYPES = {
    shapely.GeometryType.POINT: "Point",
    shapely.GeometryType.POLYGON: "Polygon",
    shapely.GeometryType.MULTIPOLYGON: "MultiPolygon",
}
"""The geometries of an atlas's tables, by GeoParquet's names."""


def points_wkb(latitude: Column, longitude: Column, altitude: Column | None = None) -> pa.Array:
    """WKB points (x = longitude, y = latitude, degrees) of n positions, null where not valid.

    A point has a z, in metres, where its altitude is finite.
    """
    lat, lon = np.asarray(latitude, dtype=np.float64), np.asarray(longitude, dtype=np.float64)
    high = np.full(lat.shape, np.nan) if altitude is None else np.asarray(altitude, np.float64)
    valid = valid_positions(lat, lon)
    solid = valid & np.isfinite(high)
    flat = valid & ~solid
    wkb = np.full(lat.shape, None, dtype=object)
    # Little-endian on every machine, so that an atlas has the same bytes; ISO's type codes for
    # points with z, as GeoParquet requires.
    for chosen, points in (
        (flat, shapely.points(lon[flat], lat[flat])),
        (solid, shapely.points(lon[solid], lat[solid], high[solid])),
    ):
        wkb[chosen] = shapely.to_wkb(points, byte_order=1, flavor="iso")
    return pa.array(wkb, pa.binary())


def boxes(latitude: Column, longitude: Column) -> pa.Array:
    """Struct column of GeoParquet's covering of n points: xmin, ymin, xmax, ymax, in degrees.

    Null where the position is not valid.
    """
    lat, lon = np.asarray(latitude, dtype=np.float64), np.asarray(longitude, dtype=np.float64)
    sides = {"xmin": lon, "ymin": lat, "xmax": lon, "ymax": lat}
    return pa.StructArray.from_arrays(
        [pa.array(side) for side in sides.values()],
        names=list(sides),
        mask=pa.array(~valid_positions(lat, lon)),
    )


def bounding_box(longitude: np.ndarray, latitude: np.ndarray) -> list[float] | None:
    """[west, south, east, north] in degrees of n positions, None for none.

    It is the narrowest box that contains them; where it crosses the antimeridian, west > east, as
    in GeoParquet and GeoJSON (RFC 7946, section 5.2).
    """
    if longitude.size == 0:
        return None
    ordered = np.unique(longitude)
    gaps = np.diff(ordered, append=ordered[0] + 360.0)
    widest = int(np.argmax(gaps))
    # The box leaves out the widest gap; on a tie the gap over the antimeridian.
    if gaps[-1] >= gaps[widest]:
        widest = len(ordered) - 1
    west, east = ordered[(widest + 1) % len(ordered)], ordered[widest]
    return [float(west), float(latitude.min()), float(east), float(latitude.max())]


def geo_metadata(
    bounds: Sequence[float] | None,
    column: str = "geometry",
    *,
    types: Sequence[str] = ("Point",),
    covering: str | None = None,
) -> str:
    """JSON for the file metadata key `geo` of a table of WKB geometries.

    `bounds` is [west, south, east, north], with the heights between where points have one: [west,
    south, lowest, east, north, highest]; None for a table without positions. `types` are those of
    its geometries, `covering` the column of `boxes`. The coordinate reference system is left out,
    which the specification defines as OGC:CRS84: longitude, latitude on WGS84.
    """
    facts: dict[str, object] = {
        "encoding": "WKB",
        "geometry_types": list(types) if bounds is not None else [],
    }
    if bounds is not None:
        facts["bbox"] = list(bounds)
    if covering is not None:
        sides = ("xmin", "ymin", "xmax", "ymax")
        facts["covering"] = {"bbox": {side: [covering, side] for side in sides}}
    return json.dumps(
        {"version": "1.1.0", "primary_column": column, "columns": {column: facts}},
        sort_keys=True,
    )


def with_geo_metadata(table: pa.Table, column: str = "geometry") -> pa.Table:
    """The table with the `geo` metadata that makes its file GeoParquet; its columns untouched.

    `column` holds WKB geometries in OGC:CRS84, nulls allowed; a column `bbox` is its covering.
    Other schema metadata is kept.
    """
    shapes = shapely.from_wkb(table.column(column).drop_null().to_numpy(zero_copy_only=False))
    x, y, z = shapely.get_coordinates(shapes, include_z=True).T
    bounds = bounding_box(x, y)
    high = z[np.isfinite(z)]
    if bounds is not None and high.size:
        bounds = [*bounds[:2], float(high.min()), *bounds[2:], float(high.max())]
    present = np.unique(np.stack([shapely.get_type_id(shapes), shapely.has_z(shapes)]), axis=1)
    kinds = [_TYPES[kind] + (" Z" if solid else "") for kind, solid in present.T]
    covering = "bbox" if "bbox" in table.column_names else None
    geo = geo_metadata(bounds, column, types=kinds, covering=covering)
    metadata = {**(table.schema.metadata or {}), b"geo": geo.encode()}
    return table.replace_schema_metadata(metadata)
