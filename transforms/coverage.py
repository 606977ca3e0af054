"""Coverage: one row for each H3 cell, from the tables of all images and poses."""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam
import pyarrow as pa

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_shard
from vladmap.photos.cells import assign_cells
from vladmap.photos.coverage import coverage_table
from vladmap.photos.image_table import JOINED_KEY
from vladmap.schemas import tables
from vladmap.schemas.records import LedgerEntry, Task, shard_cell


@dataclass(eq=False)
class MeasureCoverage(beam.PTransform):
    """One task that reads `images`, `rejects` and `poses` -> `coverage.parquet`.

    Memory holds three columns of all images, some 60 bytes per image.
    """

    root: str
    ledger: str

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.Map(self._measure)

    def _measure(self, task: Task) -> LedgerEntry:
        empty = tables.IMAGES.empty_table().select(["image_id", "captured_at"])
        images = [empty.append_column("cell", pa.array([], pa.string()))]
        for path in task.paths("images"):
            table = self._read(path, empty.schema)
            images.append(table.append_column("cell", self._cells(path, table.num_rows)))
        ids = pa.schema([tables.REJECTS.field("image_id")])
        rejected = [ids.empty_table(), *(self._read(path, ids) for path in task.paths("rejects"))]
        columns = ["image_id", "reprojection_error_px"]
        poses = self._read(task.path("poses"), tables.POSES.empty_table().select(columns).schema)
        table = coverage_table(
            pa.concat_tables(images), pa.concat_tables(rejected)["image_id"], poses
        )
        return commit_shard(self.root, self.ledger, task, table)

    def _cells(self, path: str, rows: int) -> pa.Array:
        """The cell of each photograph of a shard: its own, where several cells share the shard."""
        place = storage.join(self.root, path)
        resolution = (storage.read_schema(place).metadata or {}).get(JOINED_KEY)
        if resolution is None:
            return pa.repeat(shard_cell(layout.shard_of(path)), rows)
        at = storage.read_table(place, ["latitude", "longitude"])
        found = assign_cells(at["latitude"].to_numpy(), at["longitude"].to_numpy(), int(resolution))
        return pa.array(found, pa.string())

    def _read(self, path: str, schema: pa.Schema) -> pa.Table:
        return storage.read_table(storage.join(self.root, path), schema.names).cast(schema)
