"""Point geometries and the file metadata of GeoParquet 1.1 (https://geoparquet.org)."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import shapely

from photos.positions import valid_positions


def points_wkb(
    latitude: Sequence[float | None] | np.ndarray, longitude: Sequence[float | None] | np.ndarray
) -> pa.Array:
    """WKB points (x = longitude, y = latitude, degrees) of n positions, null where not valid."""
    lat = np.asarray(latitude, dtype=np.float64)
    lon = np.asarray(longitude, dtype=np.float64)
    valid = valid_positions(lat, lon)
    wkb = np.full(lat.shape, None, dtype=object)
    # Little-endian on every machine: the same atlas has the same bytes.
    wkb[valid] = shapely.to_wkb(shapely.points(lon[valid], lat[valid]), byte_order=1)
    return pa.array(wkb, pa.binary())


def bounding_box(longitude: np.ndarray, latitude: np.ndarray) -> list[float] | None:
    """[west, south, east, north] in degrees of n positions, None for none.

    The narrowest box that holds them: where it spans the antimeridian, west > east, as GeoParquet
    and GeoJSON (RFC 7946, section 5.2) have it.
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


def geo_metadata(bounds: Sequence[float] | None, column: str = "geometry") -> str:
    """JSON for the file metadata key `geo` of a table of WKB points.

    `bounds` is [west, south, east, north], None for a table without positions. The coordinate
    reference system is left out, which the specification defines as OGC:CRS84: longitude, latitude
    on WGS84.
    """
    described: dict[str, object] = {
        "encoding": "WKB",
        "geometry_types": ["Point"] if bounds is not None else [],
    }
    if bounds is not None:
        described["bbox"] = list(bounds)
    return json.dumps(
        {"version": "1.1.0", "primary_column": column, "columns": {column: described}},
        sort_keys=True,
    )


def with_geo_metadata(table: pa.Table, column: str = "geometry") -> pa.Table:
    """The table with the `geo` metadata that makes its file GeoParquet; its columns untouched.

    `column` holds WKB points in OGC:CRS84, nulls allowed. Other schema metadata is kept.
    """
    wkb = table.column(column).drop_null().to_numpy(zero_copy_only=False)
    coordinates = shapely.get_coordinates(shapely.from_wkb(wkb))
    bounds = bounding_box(coordinates[:, 0], coordinates[:, 1])
    metadata = {**(table.schema.metadata or {}), b"geo": geo_metadata(bounds, column).encode()}
    return table.replace_schema_metadata(metadata)
