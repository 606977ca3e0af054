"""Reconstruct: each tile on its own, on local disk and in a child process, then published.

A tile reads keypoints and two-view geometries of its images, nothing else: no photograph is opened
and no pair matched again. A tile that fails says so in its `tile.json` and costs only itself.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_entry
from vladmap.atlas.image_parts import PARTS
from vladmap.console import counter as progress
from vladmap.features.base import LocalFeatures
from vladmap.features.table import read_features
from vladmap.mapping.mapper import MapperOptions
from vladmap.mapping.reconstruct import reconstruct_tile
from vladmap.schemas import tables
from vladmap.schemas.records import LedgerEntry, Task
from vladmap.transforms.cameras import read_cameras
from vladmap.transforms.counters import StageCounters

STAGE = "reconstruct"

JUDGED_PATH = "work/judged.parquet"
"""The verdict on every verified pair of the collection, a table of mapping.judging.JUDGED."""

MEMBERS = pa.schema([("image_id", pa.string()), ("core", pa.bool_())])
"""Images of a tile; those not in its core are there to overlap with other tiles."""


@dataclass(eq=False)
class ReconstructTiles(beam.PTransform):
    """Tasks of tiles -> ledger entries of `tiles/`.

    A task reads `members`, `judged` (mapping.judging.JUDGED), and `images/<shard>`,
    `features/<shard>`, `two_views/<shard>` and `cameras/<name>` of all that its images need.
    """

    root: str
    time_limit_s: float
    gps_sigma_m: float

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        options = MapperOptions(
            max_runtime_s=int(self.time_limit_s * 0.8), gps_sigma_m=self.gps_sigma_m
        )
        return tasks | beam.ParDo(_Reconstruct(self.root, self.time_limit_s, options))


class _Reconstruct(beam.DoFn):
    def __init__(self, root: str, time_limit_s: float, options: MapperOptions) -> None:
        self._root, self._time_limit_s, self._options = root, time_limit_s, options

    def process(self, task: Task) -> Iterator[LedgerEntry]:
        started = time.monotonic()
        members = storage.read_table(storage.join(self._root, task.read("members")))
        wanted = members["image_id"].combine_chunks()
        images = named_images(self._rows(task, "images", wanted))
        keypoints = self._keypoints(task, set(wanted.to_pylist()))
        # A photograph that was rejected after ingest has no keypoints and takes no part.
        images = images.filter(
            pc.is_in(images["image_id"], pa.array(sorted(keypoints), pa.string()))
        )
        cameras = read_cameras(self._root, task)
        with tempfile.TemporaryDirectory(prefix="vladmap-tile-") as folder:
            output = Path(folder)
            result = reconstruct_tile(
                task.shard,
                output,
                images,
                keypoints.__getitem__,
                self._two_views(task, wanted),
                cameras,
                self._options,
                self._time_limit_s,
                storage.read_table(storage.join(self._root, task.read("judged"))),
            )
            report = {
                **result.report,
                "tile": task.shard,
                "images": len(wanted),
                "failure": result.failure,
            }
            yield self._publish(task, output, report, started)
        progress.advance()

    def _rows(self, task: Task, role: str, wanted: pa.Array) -> pa.Table:
        parts = []
        # The tile is made again when one of these changes: it may depend on no others.
        columns = ["uri", *PARTS["map"]]
        for path in _paths(task, role):
            table = storage.read_table(storage.join(self._root, path), columns)
            parts.append(table.filter(pc.is_in(table["image_id"], wanted)))
        return pa.concat_tables(parts)

    def _keypoints(self, task: Task, wanted: set[str]) -> dict[str, LocalFeatures]:
        found: dict[str, LocalFeatures] = {}
        for path in _paths(task, "features"):
            table = storage.read_table(storage.join(self._root, path), ["image_id", "keypoints"])
            found |= read_features(table, wanted)
        return found

    def _two_views(self, task: Task, wanted: pa.Array) -> pa.Table:
        parts = [tables.TWO_VIEWS.empty_table()]
        for path in _paths(task, "two_views"):
            table = storage.read_table(storage.join(self._root, path))
            inside = pc.and_(
                pc.is_in(table["image_id_a"], wanted), pc.is_in(table["image_id_b"], wanted)
            )
            parts.append(table.filter(inside).cast(tables.TWO_VIEWS))
        return pa.concat_tables(parts).sort_by(
            [("image_id_a", "ascending"), ("image_id_b", "ascending")]
        )

    def _publish(
        self, task: Task, output: Path, report: dict[str, Any], started: float
    ) -> LedgerEntry:
        folder = task.output.rpartition("/")[0]
        models = report.get("models", [])
        data = (json.dumps(report, indent=1, sort_keys=True) + "\n").encode()
        files = [storage.commit_file(self._root, task.output, data, 1)]
        for path in sorted((output / "sparse").rglob("*")):
            if path.is_file():
                name = f"{folder}/{path.relative_to(output).as_posix()}"
                files.append(storage.commit_file(self._root, name, path.read_bytes(), 1))
        counters = StageCounters(STAGE)
        counters.add("tiles")
        counters.add("models", len(models))
        counters.add("failed", int(report["failure"] is not None))
        return commit_entry(
            self._root,
            STAGE,
            task,
            files,
            content=storage.combined_digest(file.digest for file in files),
            counts={
                "models": len(models),
                "failed": int(report["failure"] is not None),
                # Here and not in tile.json: the same inputs give the same bytes, not the same time.
                "milliseconds": round(1000 * (time.monotonic() - started)),
                "limit_s": int(self._time_limit_s),
            },
        )


def _paths(task: Task, role: str) -> list[str]:
    return [path for name, path in task.reads if name.startswith(f"{role}/")]


def named_images(images: pa.Table) -> pa.Table:
    """The table with COLMAP's names in its `uri` column: they outlive a move of the collection."""
    place = images.schema.get_field_index("uri")
    return images.set_column(place, images.schema.field(place), images["name"])
