"""Reconstruct: each tile on its own, in a child process on local disk, then copied to the atlas.

A tile reads the keypoints and two-view geometries of its images; no photograph is opened and no
pair is matched again. A tile that fails has the reason in its `tile.json` and affects no other. On
one machine several tiles are mapped in parallel, with the same bytes as one after the other.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_entry, read_input
from vladmap.atlas.image_parts import PARTS
from vladmap.atlas.task_inputs import read_cameras, read_keypoints, read_tables
from vladmap.console import counter as progress
from vladmap.mapping.mapper import MapperOptions
from vladmap.mapping.reconstruct import TileResult, reconstruct_tile
from vladmap.mapping.tile_continuing import Before
from vladmap.mapping.tile_inputs import (
    images_among,
    two_views_among,
    with_drives,
)
from vladmap.photos.side_by_side import OutOfMemory
from vladmap.schemas.records import LedgerEntry, Task
from vladmap.schemas.rejects import DamagedFile
from vladmap.transforms.counters import StageCounters
from vladmap.transforms.side_by_side import SideBySide

STAGE = "reconstruct"

_MEMORY = 400 << 20
_MEMORY_OF_IMAGE = 3 << 20


def map_memory(images: int) -> int:
    """Bytes that a map of so many images takes, in the worker and in the tile's process together.
    Measured where tiles are mapped; what merges them adjusts a map just so."""
    return _MEMORY + images * _MEMORY_OF_IMAGE


@dataclass(eq=False)
class ReconstructTiles(beam.PTransform):
    """Tasks of tiles -> ledger entries of `tiles/`.

    A task reads `members`, `judged` (mapping.judging.JUDGED), and `images`,
    `features`, `two_views` and `cameras` of all that its images need. At most `workers` tiles of a
    bundle are mapped beside each other, the largest first, as far as memory reaches. A task that
    reads `before`, the files of the tile as it was, has its model continued. `made` is entered with
    each tile: how it was made, apart from its inputs.
    """

    root: str
    time_limit_s: float
    gps_sigma_m: float
    workers: int = 1
    made: str = ""

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        options = MapperOptions(
            max_runtime_s=int(self.time_limit_s * 0.8), gps_sigma_m=self.gps_sigma_m
        )
        return tasks | beam.ParDo(
            _Reconstruct(self.root, self.time_limit_s, options, self.workers, self.made)
        )


class _Reconstruct(SideBySide):
    def __init__(
        self, root: str, time_limit_s: float, options: MapperOptions, workers: int, made: str
    ) -> None:
        super().__init__(workers)
        self._made = made
        self._root, self._time_limit_s, self._options = root, time_limit_s, options

    def memory(self, task: Task) -> int:
        return map_memory(self._members(task).num_rows)

    def _members(self, task: Task) -> pa.Table:
        return storage.read_table(storage.join(self._root, task.path("members")))

    def done(self, task: Task, alone: bool, threads: int) -> LedgerEntry:
        """Map one tile, on one thread, and commit it; see SideBySide."""
        started = time.monotonic()
        members = self._members(task)
        wanted = members["image_id"].combine_chunks()
        # The tile is mapped again when one of these columns changes, so it must read no others.
        images = images_among(self._tables(task, layout.IMAGES, ["uri", *PARTS["map"]]), wanted)
        keypoints = read_keypoints(self._root, task, set(wanted.to_pylist()))
        # A photograph that was rejected in verify has no keypoints and takes no part.
        usable = pa.array(sorted(keypoints), pa.string())
        with tempfile.TemporaryDirectory(prefix="vladmap-tile-") as folder:
            output = Path(folder) / "now"
            result = reconstruct_tile(
                task.shard,
                output,
                with_drives(images.filter(pc.is_in(images["image_id"], value_set=usable)), members),
                keypoints.__getitem__,
                two_views_among(self._tables(task, layout.TWO_VIEWS), wanted),
                read_cameras(self._root, task),
                self._options,
                self._time_limit_s,
                storage.read_table(storage.join(self._root, task.path("judged"))),
                self._before(task, Path(folder) / "before"),
            )
            if result.out_of_memory and not alone:
                raise OutOfMemory(result.failure)
            entry = self._publish(task, output, result, len(wanted), started)
        progress.advance()
        return entry

    def _before(self, task: Task, folder: Path) -> Before | None:
        """Copy the model and the report of the tile as it was to a local folder."""
        data: dict[str, bytes] = {}
        for path in task.paths("before"):
            try:
                data[path] = read_input(self._root, task, path)
            except (OSError, DamagedFile) as error:
                return Before({}, None, f"its model of before cannot be read: {error}")
        if not data:
            return None
        report = json.loads(data.pop(task.output))
        folder.mkdir()
        for path, content in data.items():
            (folder / path.rpartition("/")[2]).write_bytes(content)
        return Before(report, folder)

    def _tables(
        self, task: Task, role: str, columns: list[str] | None = None
    ) -> Iterator[pa.Table]:
        return read_tables(self._root, task, role, columns)

    def _publish(
        self, task: Task, output: Path, result: TileResult, images: int, started: float
    ) -> LedgerEntry:
        report = result.record(images)
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
        counters.add("failed", int(result.failure is not None))
        return commit_entry(
            self._root,
            STAGE,
            task,
            files,
            content=storage.combined_digest(file.digest for file in files),
            parts={"made": self._made},
            counts={
                "models": len(models),
                "failed": int(result.failure is not None),
                "out_of_memory": int(result.out_of_memory),
                # Not in tile.json, which must have the same bytes for the same inputs.
                "milliseconds": round(1000 * (time.monotonic() - started)),
                "limit_s": int(self._time_limit_s),
            },
        )
