"""Coverage through a pipeline of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq

from vladmap.atlas import layout, storage
from vladmap.photos.cells import assign_cells
from vladmap.schemas.records import NO_CELL, Task
from vladmap.transforms.coverage import MeasureCoverage

NORTH, SOUTH = assign_cells([55.72, 55.70], [13.19, 13.19])
SHARDS = {
    f"g0000-00000-{NORTH}-000": ["a", "b"],
    f"g0001-00000-{NORTH}-000": ["c"],
    f"g0000-00000-{SOUTH}-000": ["d"],
    f"g0000-00000-{NO_CELL}-000": ["e"],
}


def test_shards_of_a_cell_are_one_row_and_its_line_stands_in_the_ledger(tmp_path: Path) -> None:
    root, reads = str(tmp_path), []
    for number, (shard, ids) in enumerate(SHARDS.items()):
        times = pa.array([datetime(2024, 5, 1 + number, tzinfo=UTC)] * len(ids))
        table = pa.table({"image_id": ids, "captured_at": times.cast(pa.timestamp("us", "UTC"))})
        storage.commit_table(root, layout.images(shard), table)
        reads.append(("images", layout.images(shard)))
    storage.commit_table(root, layout.POSES, pa.table(
        {"image_id": ["a", "c", "d"], "reprojection_error_px": [1.0, 4.0, 0.25]}
    ))  # fmt: skip
    for number, ids in enumerate((["d"], ["z"])):
        path = layout.rejects("describe-x", f"s{number}")
        storage.commit_table(root, path, pa.table({"image_id": ids}))
        reads.append(("rejects", path))
    task = Task("all", NO_CELL, layout.COVERAGE, "f", reads=(*reads, ("poses", layout.POSES)))
    with beam.Pipeline() as pipeline:
        pipeline | beam.Create([task]) | MeasureCoverage(root, "coverage")
    rows = {row["cell"]: row for row in pq.read_table(tmp_path / layout.COVERAGE).to_pylist()}
    names = ["images", "registered", "rejected", "reprojection_error_px"]
    assert {cell: [row[name] for name in names] for cell, row in rows.items()} == {
        NORTH: [3, 2, 0, 2.5],
        SOUTH: [1, 1, 1, 0.25],
        NO_CELL: [1, 0, 1, None],
    }
    assert [rows[NORTH][name].day for name in ("first_captured_at", "last_captured_at")] == [1, 2]
    assert (tmp_path / layout.ledger_entry("coverage", "all")).exists()
