"""Merge: all tiles' models into as few as agree. One worker holds them, as large as the map is."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_entry, read_input
from vladmap.mapping.mapper import image_names
from vladmap.mapping.merge import Merged, merge_tiles
from vladmap.mapping.poses import poses_table
from vladmap.mapping.tile_model import TileModel, read_model
from vladmap.mapping.unregistered import MapOutcome
from vladmap.schemas.records import FileRef, LedgerEntry, Task
from vladmap.transforms.colours import colour_models
from vladmap.transforms.counters import StageCounters
from vladmap.transforms.unregistered import read_unregistered

STAGE = "merge"


@dataclass(eq=False)
class MergeTiles(beam.PTransform):
    """One task that reads `images/<shard>` and `tiles/<tile>/<n>` -> `model/`, `poses.parquet`.

    For `unregistered.parquet` it reads `rejects/<n>`, `pair/<shard>` and `verify/<shard>` too;
    `collection` is what the names of photographs that were never read are relative to.
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
            reports, tiles = self._tiles(task, Path(folder))
            in_models = {
                by_name[name]["image_id"]: tile.name
                for tile in tiles
                for name in image_names(tile.model)
            }
            merged = merge_tiles(tiles, by_name, self._gps_sigma_m)
            models = [tile.model for tile in merged.models]
            colours = colour_models(models, by_name, self._max_pixels, self._threads)
            poses = poses_table(merged.models, by_name)
            reasons = {
                by_name[name]["image_id"]: reason for name, reason in merged.unregistered.items()
            }
            files = self._publish(task, merged, reasons, colours, Path(folder))
            outcome = MapOutcome(reports, in_models, reasons)
        files.append(storage.commit_table(self._root, "poses.parquet", poses))
        unregistered = read_unregistered(self._root, task, self._collection, outcome, poses)
        files.append(storage.commit_table(self._root, "unregistered.parquet", unregistered))
        counters = StageCounters(STAGE)
        counters.add("models", len(merged.models))
        counters.add("registered", poses.num_rows)
        counters.add("unregistered", unregistered.num_rows)
        yield commit_entry(
            self._root,
            STAGE,
            task,
            files,
            content=storage.combined_digest(file.digest for file in files),
            counts={
                "models": len(merged.models),
                "registered": poses.num_rows,
                "unregistered": unregistered.num_rows,
                "unreadable": len(colours["unreadable"]),
            },
        )

    def _images(self, task: Task) -> dict[str, dict[str, Any]]:
        columns = [
            "image_id",
            "name",
            "uri",
            "content_hash",
            "latitude",
            "longitude",
            "altitude",
            "gps_accuracy_m",
            "heading_deg",
            "sequence_id",
            "sequence_index",
        ]
        found = {}
        for role, path in task.reads:
            if role.startswith("images/"):
                for row in storage.read_table(storage.join(self._root, path), columns).to_pylist():
                    found[row["name"]] = row
        return found

    def _tiles(self, task: Task, folder: Path) -> tuple[dict[str, dict[str, Any]], list[TileModel]]:
        """What tile.json says of each tile, and the models, by way of local disk for COLMAP."""
        reports = {}
        for role, path in task.reads:
            if role.startswith("tiles/"):
                data = read_input(self._root, task, path)
                local = folder / path
                local.parent.mkdir(parents=True, exist_ok=True)
                local.write_bytes(data)
                if path.endswith("/tile.json"):
                    reports[path.split("/")[1]] = json.loads(data)
        return reports, [
            read_model(
                folder / "tiles" / name / "sparse" / str(int(model["model"])),
                f"{name}/{model['model']}",
                model["origin"],
                model["georegistered"],
            )
            for name, report in sorted(reports.items())
            for model in report.get("models", [])
        ]

    def _publish(
        self,
        task: Task,
        merged: Merged,
        unregistered: dict[str, str],
        colours: dict[str, Any],
        folder: Path,
    ) -> list[FileRef]:
        report = {
            "models": merged.reports,
            "decisions": merged.decisions,
            "unregistered": unregistered,
            "colours": colours,
            "models_left_out": merged.left_out,
        }
        data = (json.dumps(report, indent=1, sort_keys=True) + "\n").encode()
        files = [storage.commit_file(self._root, task.output, data, len(merged.models))]
        for number, tile in enumerate(merged.models):
            local = folder / "model" / str(number)
            local.mkdir(parents=True)
            tile.model.write_binary(local)
            for path in sorted(local.iterdir()):
                name = f"model/{number}/{path.name}"
                files.append(storage.commit_file(self._root, name, path.read_bytes(), 1))
        return files
