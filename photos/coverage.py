"""How well each cell of a city is covered: photographs, those in the map, times, errors."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from vladmap.photos.cells import cell_outlines
from vladmap.photos.geoparquet import with_geo_metadata
from vladmap.schemas import tables
from vladmap.schemas.records import NO_CELL


def coverage_table(images: pa.Table, rejected: pa.ChunkedArray, poses: pa.Table) -> pa.Table:
    """schemas.tables.COVERAGE, sorted by cell, with the metadata of GeoParquet.

    `images` has `image_id`, `cell` and `captured_at`; `rejected` are image ids, which may occur
    several times; `poses` has `image_id` and `reprojection_error_px`.
    """
    ids = images["image_id"].combine_chunks()
    cell = images["cell"].combine_chunks()

    def cells_of(image_ids: pa.ChunkedArray | pa.Array) -> pa.Array:
        """The cell of each image; `none` for one that is not in `images/`."""
        at = pc.take(cell, pc.index_in(image_ids, value_set=ids))
        known = at.combine_chunks() if isinstance(at, pa.ChunkedArray) else at
        return pc.fill_null(known, NO_CELL)

    of_rejects, of_poses = cells_of(pc.unique(rejected)), cells_of(poses["image_id"])
    cells = pa.array(
        sorted({*cell.unique().to_pylist(), *of_rejects.unique().to_pylist()}), pa.string()
    )
    times = images.select(["cell", "captured_at"]).group_by("cell")
    span = times.aggregate([("captured_at", "min"), ("captured_at", "max")])
    rows = pc.index_in(cells, value_set=span["cell"].combine_chunks())
    errors = _medians(_places(of_poses, cells), poses["reprojection_error_px"], len(cells))
    outlines = shapely.to_wkb(np.array(cell_outlines(cells.to_pylist()), object), byte_order=1)
    columns = {
        "cell": cells,
        "images": _counts(cell, cells),
        "registered": _counts(of_poses, cells),
        "rejected": _counts(of_rejects, cells),
        "first_captured_at": pc.take(span["captured_at_min"], rows),
        "last_captured_at": pc.take(span["captured_at_max"], rows),
        "reprojection_error_px": pa.array(errors, from_pandas=True),
        "geometry": pa.array(outlines, pa.binary()),
    }
    return with_geo_metadata(pa.table(columns).cast(tables.COVERAGE))


def _places(values: pa.Array, cells: pa.Array) -> NDArray[np.int64]:
    """The place in `cells` of each value."""
    return np.asarray(pc.index_in(values, value_set=cells), np.int64)


def _counts(values: pa.Array, cells: pa.Array) -> NDArray[np.int64]:
    """How many of the values each cell has."""
    return np.bincount(_places(values, cells), minlength=len(cells))


def _medians(places: NDArray[np.int64], values: pa.ChunkedArray, count: int) -> list[float]:
    """The median of the values at each of `count` places, NaN where there is none."""
    order = np.argsort(places, kind="stable")
    starts = np.searchsorted(places[order], np.arange(count))
    _, *parts = np.split(values.to_numpy()[order], starts)
    return [float(np.median(part)) if part.size else np.nan for part in parts]
