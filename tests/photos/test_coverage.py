"""The coverage of cells, worked out by hand."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import geopandas
import pyarrow as pa
import pyarrow.parquet as pq

from vladmap.photos.cells import assign_cells
from vladmap.photos.coverage import coverage_table
from vladmap.schemas import tables
from vladmap.schemas.records import NO_CELL

NORTH, SOUTH = assign_cells([55.72, 55.70], [13.19, 13.19])
TIMES = [datetime(2024, 5, day, tzinfo=UTC) for day in (3, 1, 2)]
IMAGES = pa.table(
    {
        "image_id": ["a", "b", "c", "d", "e"],
        "cell": [NORTH, NORTH, NORTH, SOUTH, NO_CELL],
        "captured_at": pa.array([*TIMES, None, None], pa.timestamp("us", "UTC")),
    }
)
POSELESS = tables.POSES.empty_table().select(["image_id", "reprojection_error_px"])


def rows(rejected: list[str], errors: dict[str, float]) -> dict[str, dict[str, object]]:
    poses = {
        "image_id": pa.array(errors, pa.string()),
        "reprojection_error_px": pa.array(errors.values(), pa.float64()),
    }
    ids = pa.chunked_array([pa.array(rejected, pa.string())])
    table = coverage_table(IMAGES, ids, pa.table(poses))
    assert table.schema.remove_metadata().equals(tables.COVERAGE.remove_metadata())
    assert table["cell"].to_pylist() == sorted(table["cell"].to_pylist())
    return {row["cell"]: row for row in table.to_pylist()}


def test_each_cell_has_its_counts_its_first_and_last_capture_and_its_median_error() -> None:
    found = rows(["b", "d", "b"], {"c": 0.5, "e": 3.0, "a": 2.0, "b": 1.0})
    north, south, nowhere = (found[cell] for cell in (NORTH, SOUTH, NO_CELL))
    counts = ["images", "registered", "rejected"]
    assert [north[name] for name in counts] == [3, 3, 1]
    assert [south[name] for name in counts] == [1, 0, 1]
    assert [nowhere[name] for name in counts] == [1, 1, 0]
    assert (north["first_captured_at"], north["last_captured_at"]) == (TIMES[1], TIMES[0])
    assert north["reprojection_error_px"] == 1.0
    assert south["first_captured_at"] is south["reprojection_error_px"] is None
    assert nowhere["reprojection_error_px"] == 3.0
    assert nowhere["geometry"] is None


def test_the_median_of_two_errors_lies_between_them() -> None:
    assert rows([], {"a": 1.0, "c": 2.0})[NORTH]["reprojection_error_px"] == 1.5


def test_a_photograph_that_ingest_rejected_counts_without_a_position() -> None:
    nowhere = rows(["never read", "e"], {})[NO_CELL]
    assert (nowhere["images"], nowhere["rejected"]) == (1, 2)
    empty = coverage_table(IMAGES.slice(0, 4), pa.chunked_array([["x"]]), POSELESS)
    assert empty["cell"].to_pylist()[-1] == NO_CELL
    assert empty["images"].to_pylist()[-1] == 0


def test_without_photographs_there_is_an_empty_table() -> None:
    table = coverage_table(IMAGES.slice(0, 0), pa.chunked_array([], pa.string()), POSELESS)
    assert table.num_rows == 0
    assert json.loads(table.schema.metadata[b"geo"])["primary_column"] == "geometry"


def test_geopandas_reads_each_cell_as_a_polygon_that_holds_its_photographs() -> None:
    buffer = io.BytesIO()
    pq.write_table(coverage_table(IMAGES, pa.chunked_array([], pa.string()), POSELESS), buffer)
    frame = geopandas.read_parquet(io.BytesIO(buffer.getvalue())).set_index("cell")
    assert str(frame.crs) == "OGC:CRS84"
    assert frame.loc[NORTH, "geometry"].contains(geopandas.points_from_xy([13.19], [55.72])[0])
    assert not frame.loc[SOUTH, "geometry"].intersects(frame.loc[NORTH, "geometry"])
