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

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_entry
from vladmap.atlas.image_parts import PARTS
from vladmap.atlas.task_inputs import read_cameras, read_tables
from vladmap.console import counter as progress
from vladmap.mapping.mapper import MapperOptions
from vladmap.mapping.reconstruct import reconstruct_tile
from vladmap.mapping.tile_inputs import features_among, images_among, two_views_among
from vladmap.schemas.records import LedgerEntry, Task
from vladmap.transforms.counters import StageCounters

STAGE = "reconstruct"


@dataclass(eq=False)
class ReconstructTiles(beam.PTransform):
    """Tasks of tiles -> ledger entries of `tiles/`.

    A task reads `members`, `judged` (mapping.judging.JUDGED), and `images`,
    `features`, `two_views` and `cameras` of all that its images need.
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
        members = storage.read_table(storage.join(self._root, task.path("members")))
        wanted = members["image_id"].combine_chunks()
        # The tile is mapped again when one of these columns changes: it may depend on no others.
        images = images_among(self._tables(task, layout.IMAGES, ["uri", *PARTS["map"]]), wanted)
        keypoints = features_among(
            self._tables(task, layout.FEATURES, ["image_id", "keypoints"]), set(wanted.to_pylist())
        )
        # A photograph that was rejected after ingest has no keypoints and takes no part.
        usable = pa.array(sorted(keypoints), pa.string())
        with tempfile.TemporaryDirectory(prefix="vladmap-tile-") as folder:
            output = Path(folder)
            result = reconstruct_tile(
                task.shard,
                output,
                images.filter(pc.is_in(images["image_id"], value_set=usable)),
                keypoints.__getitem__,
                two_views_among(self._tables(task, layout.TWO_VIEWS), wanted),
                read_cameras(self._root, task),
                self._options,
                self._time_limit_s,
                storage.read_table(storage.join(self._root, task.path("judged"))),
            )
            yield self._publish(task, output, result.record(len(wanted)), started)
        progress.advance()

    def _tables(
        self, task: Task, role: str, columns: list[str] | None = None
    ) -> Iterator[pa.Table]:
        return read_tables(self._root, task, role, columns)

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
