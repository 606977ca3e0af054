"""The stages that make maps: tiles from verified pairs, models from tiles."""

from __future__ import annotations

import logging
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mapping.cameras import camera_keys
from mapping.tiles import Tile, plan_tiles
from pipeline.fingerprints import fingerprint
from pipeline.options import worker_threads
from pipeline.run import Run
from pipeline.stages import (
    camera_name,
    describe_name,
    features_name,
    image_shards,
    inputs_of,
    reject_paths,
)
from schemas.records import NO_CELL, Task
from transforms import cameras as cameras_stage
from transforms import ingest as ingest_stage
from transforms import merge as merge_stage
from transforms import pair as pair_stage
from transforms import reconstruct as reconstruct_stage
from transforms import storage
from transforms import verify as verify_stage

log = logging.getLogger("vladmap")

_UNVERIFIED = pa.array(["DEGENERATE", "UNDEFINED", "WATERMARK"])


class _Graph:
    """All images and verified pairs as arrays: some 100 bytes an image, 20 a pair.

    A million images with twenty verified pairs each take half a gigabyte here, in the driver.
    """

    def __init__(self, run: Run) -> None:
        parts = []
        for shard, entry in image_shards(run).items():
            columns = [*cameras_stage.IMAGE_COLUMNS, "latitude", "longitude", "duplicate_of"]
            table = storage.read_table(run.atlas.path(entry.file.path), columns)
            table = table.filter(pc.is_null(table["duplicate_of"]))
            keys = [camera_name(key) for key in camera_keys(table)]
            parts.append(
                table.append_column("shard", pa.array([shard] * table.num_rows, pa.string()))
                .append_column("camera", pa.array(keys, pa.string()))
                .select(["image_id", "latitude", "longitude", "shard", "camera"])
            )
        images = pa.concat_tables(parts).sort_by("image_id")
        self.ids = images["image_id"].to_pylist()
        self.rows = {image: row for row, image in enumerate(self.ids)}
        self.latitude, self.longitude = (
            images[name].to_numpy().astype(np.float64) for name in ("latitude", "longitude")
        )
        self.shard, self.camera = (
            np.array(images[name].to_pylist(), dtype=object) for name in ("shard", "camera")
        )
        self._read_pairs(run)

    def _read_pairs(self, run: Run) -> None:
        first: list[int] = []
        second: list[int] = []
        weight: list[NDArray[np.int32]] = []
        shard: list[str] = []
        for name, entry in sorted(run.atlas.ledger(verify_stage.STAGE).items()):
            table = storage.read_table(
                run.atlas.path(entry.file.path),
                ["image_id_a", "image_id_b", "configuration", "inliers"],
            )
            good = pc.invert(pc.is_in(table["configuration"], _UNVERIFIED))
            table = table.filter(good)
            first.extend(self.rows[image] for image in table["image_id_a"].to_pylist())
            second.extend(self.rows[image] for image in table["image_id_b"].to_pylist())
            weight.append(pc.list_value_length(table["inliers"]).to_numpy())
            shard.extend([name] * table.num_rows)
        self.first, self.second = np.array(first, np.int64), np.array(second, np.int64)
        self.weight = np.concatenate([np.zeros(0), *weight]).astype(np.float64)
        self.pair_shard = np.array(shard, dtype=object)


def reconstruct(run: Run) -> None:
    """Cut the verified pairs into tiles, and map those that are new or have changed.

    Where there are none, or all of them fail, the map is empty.
    """
    options, root = run.options, run.atlas.root
    graph = _Graph(run)
    ids = np.array(graph.ids, dtype=object)
    tiles = plan_tiles(
        graph.ids,
        graph.latitude,
        graph.longitude,
        ids[graph.first].tolist(),
        ids[graph.second].tolist(),
        graph.weight,
        max_images=options.tile_images,
    )
    if not tiles:
        # What was found still stands: descriptors, index and pairs are there, and the report says
        # of each photograph why it is in no map.
        log.warning(
            "reconstruct: no two photographs see the same scene, so there is nothing to map; "
            "photographs further apart than they can see make no map"
        )
    tasks = [_tile_task(run, graph, tile) for tile in tiles]
    run.execute(
        reconstruct_stage.STAGE,
        tasks,
        reconstruct_stage.ReconstructTiles(
            root,
            60 * options.tile_minutes,
            options.gps_sigma_m,
        ),
        unit="tiles",
    )


def _tile_task(run: Run, graph: _Graph, tile: Tile) -> Task:
    members = np.array([graph.rows[image] for image in tile.image_ids])
    table = pa.Table.from_arrays(
        [pa.array(tile.image_ids, pa.string()), pa.array(tile.core, pa.bool_())],
        schema=reconstruct_stage.MEMBERS,
    )
    inside = np.zeros(len(graph.ids), bool)
    inside[members] = True
    pairs = inside[graph.first] & inside[graph.second]
    reads: dict[str, list[str]] = defaultdict(list)
    path = f"work/tiles/{tile.name}.parquet"
    file = storage.commit_table(run.atlas.root, path, table)
    stages = {
        "images": ("ingest", graph.shard[members]),
        "features": (features_name(run), graph.shard[members]),
        "two_views": (verify_stage.STAGE, graph.pair_shard[pairs]),
        "cameras": (cameras_stage.STAGE, graph.camera[members]),
    }
    inputs: list[tuple[str, str]] = []
    for role, (stage, shards) in stages.items():
        ledger = run.atlas.ledger(stage)
        found = [shard for shard in _unique(shards) if shard in ledger]
        reads[role] = [ledger[shard].file.path for shard in found]
        inputs.extend(inputs_of(run, stage, found, "map" if role == "images" else ""))
    return Task(
        tile.name,
        NO_CELL,
        f"tiles/{tile.name}/tile.json",
        fingerprint("reconstruct", members=file.digest, gps_sigma_m=run.options.gps_sigma_m),
        reads=(
            ("members", path),
            *((f"{role}/{number}", at) for role in stages for number, at in enumerate(reads[role])),
        ),
        inputs=tuple(inputs),
    )


def _unique(names: NDArray[np.object_]) -> list[str]:
    return sorted(set(names.tolist()))


def merge(run: Run) -> None:
    """Join the tiles' models where they agree.

    Writes `model/`, `poses.parquet` and `unregistered.parquet`, which says of every other
    photograph why it has no pose, and so reads what each stage said.
    """
    tiles = dict(sorted(run.atlas.ledger(reconstruct_stage.STAGE).items()))
    images = image_shards(run)
    stages = (
        ingest_stage.STAGE,
        describe_name(run),
        features_name(run),
        pair_stage.STAGE,
        verify_stage.STAGE,
        reconstruct_stage.STAGE,
    )
    task = Task(
        "model",
        NO_CELL,
        "model/merge.json",
        fingerprint("merge", gps_sigma_m=run.options.gps_sigma_m),
        reads=(
            *((f"images/{shard}", entry.file.path) for shard, entry in images.items()),
            *(
                (f"tiles/{tile}/{number}", file.path)
                for tile, entry in tiles.items()
                for number, file in enumerate(entry.files)
            ),
            *((f"rejects/{number}", path) for number, path in enumerate(reject_paths(run))),
            *(
                (f"{stage}/{shard}", entry.file.path)
                for stage in (pair_stage.STAGE, verify_stage.STAGE)
                for shard, entry in sorted(run.atlas.ledger(stage).items())
            ),
        ),
        inputs=tuple(
            item
            for stage in stages
            for item in inputs_of(run, stage, sorted(run.atlas.ledger(stage)))
        ),
    )
    ledger = run.execute(
        merge_stage.STAGE,
        [task],
        merge_stage.MergeTiles(
            run.atlas.root,
            str(run.atlas.manifest.get("collection", "")),
            run.options.gps_sigma_m,
            run.options.max_pixels,
            worker_threads(run.options, run.in_process),
        ),
        unit="images",
        count=lambda task: max(1, sum(entry.counts["images"] for entry in images.values())),
    )
    counts = ledger["model"].counts
    missing, total = counts["unregistered"], counts["unregistered"] + counts["registered"]
    if missing:
        log.log(
            logging.INFO if counts["registered"] else logging.WARNING,
            "merge: %d of %d photographs are not in the map: see the report, and for each one "
            "unregistered.parquet",
            missing,
            total,
        )
    if counts["unreadable"]:
        log.warning(
            "merge: %d photographs cannot be read any more, their points have no colour from them: "
            "model/merge.json names them",
            counts["unreadable"],
        )
