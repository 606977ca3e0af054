"""H3 cells: the cell of an image, neighbouring cells, outlines."""

from __future__ import annotations

from collections.abc import Sequence

import h3
import numpy as np
import shapely

from vladmap.photos.positions import valid_positions
from vladmap.schemas.records import NO_CELL

RESOLUTION = 8
"""Cells of 0.7 km2 with edges of about 0.5 km: a shard's worth of a densely driven city."""


def assign_cells(
    latitude: Sequence[float | None] | np.ndarray,
    longitude: Sequence[float | None] | np.ndarray,
    resolution: int = RESOLUTION,
) -> list[str]:
    """The H3 cell of each of n positions in degrees, `none` where there is no valid one."""
    lat = np.asarray(latitude, dtype=np.float64)
    lon = np.asarray(longitude, dtype=np.float64)
    return [
        h3.latlng_to_cell(y, x, resolution) if valid else NO_CELL
        for y, x, valid in zip(
            lat.tolist(), lon.tolist(), valid_positions(lat, lon).tolist(), strict=True
        )
    ]


def ring(cell: str, k: int = 1) -> list[str]:
    """The cell and all within k steps of it, sorted; `none` has no neighbours but itself."""
    return [NO_CELL] if cell == NO_CELL else sorted(h3.grid_disk(cell, k))


def cell_outlines(cells: Sequence[str]) -> list[shapely.Geometry | None]:
    """The outline of each H3 cell in OGC:CRS84, None for `none`.

    The outline of a cell that crosses the antimeridian has two parts, one on each side, as GeoJSON
    requires (RFC 7946, section 3.1.9). Cells that contain a pole are not supported.
    """
    return [None if cell == NO_CELL else _outline(cell) for cell in cells]


def _outline(cell: str) -> shapely.Geometry:
    corners = np.array([(east, north) for north, east in h3.cell_to_boundary(cell)])
    if np.ptp(corners[:, 0]) < 180.0:
        return shapely.Polygon(corners)
    whole = shapely.Polygon(corners + (corners[:, :1] < 0) * (360.0, 0.0))
    west = shapely.intersection(whole, shapely.box(0.0, -90.0, 180.0, 90.0))
    east = shapely.intersection(whole, shapely.box(180.0, -90.0, 360.0, 90.0))
    return shapely.MultiPolygon([west, shapely.transform(east, lambda at: at - (360.0, 0.0))])
