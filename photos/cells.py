"""H3 cells: where an image is kept, and which cells are near."""

from __future__ import annotations

from collections.abc import Sequence

import h3
import numpy as np

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
