"""H3 cells: the cell of an image, neighbouring cells, outlines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import h3
import numpy as np
import shapely

from vladmap.photos.positions import valid_positions
from vladmap.schemas.records import NO_CELL

Item = TypeVar("Item")

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


FEW_CELLS = 16
"""Up to so many cells each has shards of its own, however few photographs lie in it."""

JOINED_LEVELS = 2
"""Resolutions, above that of the cells, whose cells shards may be joined to: 49 cells in one."""


def joined_cells(counts: Mapping[str, int], full: int) -> dict[str, str]:
    """The cell whose name each cell's shards bear: its own, or a coarser one that shares them.

    In the country a cell has a dozen photographs, and shards of a dozen cost as much as full ones.
    Of cells with less than half of `full` photographs, those in one cell of the next resolution
    share shards if together they have that many, else those in one of the resolution above. All
    `counts` are of one resolution. FEW_CELLS cells or fewer stay as they are.
    """
    names = {cell: cell for cell in counts}
    small = {cell: cell for cell in counts if cell != NO_CELL and 2 * counts[cell] < full}
    if len(counts) <= FEW_CELLS or not small:
        return names
    resolution = h3.get_resolution(next(iter(small)))
    for level in range(resolution - 1, resolution - 1 - JOINED_LEVELS, -1):
        groups: dict[str, list[str]] = defaultdict(list)
        for cell in sorted(small):
            groups[h3.cell_to_parent(cell, level)].append(cell)
        last = level == resolution - JOINED_LEVELS
        for parent, cells in groups.items():
            if last or 2 * sum(counts[cell] for cell in cells) >= full:
                names |= {cell: parent for cell in cells if len(cells) > 1}
                small = {cell: cell for cell in small if cell not in set(cells)}
    return names


class Nearby(Generic[Item]):
    """Things in cells of several resolutions, found by the cells that they are near to.

    Near are those in a cell and in the six around it, and in the coarser cells that these lie in:
    what lies within one step of a photograph's own cell, and more.
    """

    def __init__(self) -> None:
        self._in: dict[str, list[Item]] = defaultdict(list)
        self._under: dict[str, list[Item]] = defaultdict(list)
        self._resolutions: set[int] = set()

    def add(self, cell: str, item: Item) -> None:
        """Things in NO_CELL are near to nothing."""
        if cell == NO_CELL:
            return
        resolution = h3.get_resolution(cell)
        self._resolutions.add(resolution)
        self._in[cell].append(item)
        for level in range(max(0, resolution - JOINED_LEVELS), resolution + 1):
            self._under[h3.cell_to_parent(cell, level)].append(item)

    def near(self, cell: str) -> list[Item]:
        """What was added that is near to a cell, none of it twice."""
        if cell == NO_CELL:
            return []
        around, resolution = ring(cell), h3.get_resolution(cell)
        found = [item for each in around for item in self._under.get(each, ())]
        for level in sorted(self._resolutions):
            if level < resolution:
                for parent in sorted({h3.cell_to_parent(each, level) for each in around}):
                    found += self._in.get(parent, ())
        return found


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
