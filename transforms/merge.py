"""Merge: the tiles' models are joined where they agree. One worker holds all of them in memory."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_entry, read_input
from vladmap.atlas.judged_views import judged_views
from vladmap.atlas.reading import How, ThreadReader, in_order
from vladmap.atlas.task_inputs import read_tables
from vladmap.atlas.unregistered import read_unregistered
from vladmap.console import counter as progress
from vladmap.mapping.colours import colour_models, reduced_size
from vladmap.mapping.mapper import image_names
from vladmap.mapping.point_agreement import VIEW_COLUMNS
from vladmap.mapping.poses import poses_table
from vladmap.mapping.quality import Qualities, figures, qualities, tile_figures
from vladmap.mapping.tile_merge import IMAGE_COLUMNS, Merged, merge_tiles
from vladmap.mapping.tile_model import read_tile_models
from vladmap.mapping.unregistered import MapOutcome
from vladmap.schemas.records import FileRef, LedgerEntry, Task
from vladmap.transforms.counters import StageCounters

STAGE = "merge"


@dataclass(eq=False)
class MergeTiles(beam.PTransform):
    """One task that reads `images` and `tiles` -> `model/`, `poses.parquet`.

    For the quality of poses it also reads `two_views`, and for `unregistered.parquet` `rejects` and
    `pairs`. `collection` is the
    folder that names of photographs are relative to, for those that were never read.
    """

    root: str
    collection: str
    gps_sigma_m: float
    max_pixels: int
    threads: int

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.ParDo(
            _Merge(self.root, self.collection, self.gps_sigma_m, self.max_pixels, self.threads)
        )


class _Merge(beam.DoFn):
    def __init__(
        self, root: str, collection: str, gps_sigma_m: float, max_pixels: int, threads: int
    ) -> None:
        self._root, self._collection, self._gps_sigma_m = root, collection, gps_sigma_m
        self._max_pixels, self._threads = max_pixels, threads

    def process(self, task: Task) -> Iterator[LedgerEntry]:
        by_name = self._images(task)
        with tempfile.TemporaryDirectory(prefix="vladmap-merge-") as folder:
            reports = self._copy_tiles(task, Path(folder))
            tiles = read_tile_models(Path(folder) / layout.TILES, reports)
            in_models = {
                by_name[name]["image_id"]: tile.name
                for tile in tiles
                for name in image_names(tile.model)
            }
            merged = merge_tiles(tiles, by_name, self._gps_sigma_m)
            models = [tile.model for tile in merged.models]
            colours = colour_models(models, partial(self._photographs, by_name))
            quality = self._quality(task, merged, by_name)
            poses = poses_table(merged.models, by_name, quality)
            reasons = {
                by_name[name]["image_id"]: reason for name, reason in merged.unregistered.items()
            }
            found = [figures(of_model.values()) for of_model in quality]
            report = merged.report(reasons, colours, found, tile_figures(tiles, quality))
            files = self._publish(task, merged, report, Path(folder))
            outcome = MapOutcome(reports, in_models, reasons)
        files.append(storage.commit_table(self._root, layout.POSES, poses))
        unregistered = read_unregistered(self._root, task, self._collection, outcome, poses)
        files.append(storage.commit_table(self._root, layout.UNREGISTERED, unregistered))
        counts = {
            "models": len(merged.models),
            "registered": poses.num_rows,
            "unregistered": unregistered.num_rows,
            "doubtful": poses.num_rows - poses["doubt"].null_count,
        }
        counters = StageCounters(STAGE)
        for name, count in counts.items():
            counters.add(name, count)
        yield commit_entry(
            self._root,
            STAGE,
            task,
            files,
            content=storage.combined_digest(file.digest for file in files),
            counts={**counts, "unreadable": len(colours["unreadable"])},
        )

    def _quality(
        self, task: Task, merged: Merged, by_name: Mapping[str, Mapping[str, Any]]
    ) -> list[Qualities]:
        """The quality of the photographs of each model; the matches are read once a model."""
        return [
            qualities(tile, by_name, self._gps_sigma_m, self._judged(task))
            for tile in merged.models
        ]

    def _judged(self, task: Task) -> Iterator[pa.Table]:
        """Pairs with their verdicts, shard by shard."""
        paths = (storage.join(self._root, path) for path in task.paths(layout.TWO_VIEWS))
        return judged_views(paths, VIEW_COLUMNS)

    def _images(self, task: Task) -> dict[str, dict[str, Any]]:
        tables = read_tables(self._root, task, layout.IMAGES, IMAGE_COLUMNS)
        return {row["name"]: row for table in tables for row in table.to_pylist()}

    def _copy_tiles(self, task: Task, folder: Path) -> dict[str, dict[str, Any]]:
        """Copy tiles to local disk, where COLMAP reads them; return their reports by name."""
        reports = {}
        for path in task.paths(layout.TILES):
            data = read_input(self._root, task, path)
            local = folder / path
            local.parent.mkdir(parents=True, exist_ok=True)
            local.write_bytes(data)
            tile = layout.tile_of(path)
            if path == layout.tile_report(tile):
                reports[tile] = json.loads(data)
        return reports

    def _photographs(
        self, by_name: Mapping[str, dict[str, Any]], names: Sequence[str]
    ) -> Iterator[NDArray[np.uint8] | Exception]:
        """Yield each photograph's pixels at reduced size, or the error of reading it."""
        rows = [dict(by_name[name]) for name in names]
        reader = ThreadReader(How(self._max_pixels, reduced_size), self._threads)
        with contextlib.closing(reader):
            for photo in in_order(reader, rows, 2 * self._threads):
                if photo.pixels is not None:
                    yield photo.pixels
                elif photo.error is not None:
                    yield photo.error
                progress.advance()

    def _publish(
        self,
        task: Task,
        merged: Merged,
        report: dict[str, Any],
        folder: Path,
    ) -> list[FileRef]:
        data = (json.dumps(report, indent=1, sort_keys=True) + "\n").encode()
        files = [storage.commit_file(self._root, task.output, data, len(merged.models))]
        for number, tile in enumerate(merged.models):
            local = folder / layout.model_folder(number)
            local.mkdir(parents=True)
            tile.model.write_binary(local)
            for path in sorted(local.iterdir()):
                name = f"{layout.model_folder(number)}/{path.name}"
                files.append(storage.commit_file(self._root, name, path.read_bytes(), 1))
        return files
