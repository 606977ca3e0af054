"""The stages that make maps: tiles from verified pairs, models from tiles."""

from __future__ import annotations

import logging
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vladmap.atlas import storage
from vladmap.atlas.fingerprints import fingerprint
from vladmap.mapping.camera_keys import camera_keys
from vladmap.mapping.judging import KEPT, QUATERNION, judge, judged_table, pairs_of, photographs_of
from vladmap.mapping.tiles import Tile, plan_tiles
from vladmap.mapping.two_view import inlier_counts
from vladmap.pipeline.options import worker_threads
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import (
    camera_name,
    describe_name,
    features_name,
    image_shards,
    inputs_of,
    reject_paths,
)
from vladmap.schemas import tables
from vladmap.schemas.records import NO_CELL, Task
from vladmap.transforms import cameras as cameras_stage
from vladmap.transforms import ingest as ingest_stage
from vladmap.transforms import merge as merge_stage
from vladmap.transforms import pair as pair_stage
from vladmap.transforms import reconstruct as reconstruct_stage
from vladmap.transforms import verify as verify_stage

log = logging.getLogger("vladmap")

_JUDGED_COLUMNS = ["latitude", "longitude", "gps_accuracy_m", "sequence_id", "sequence_index"]


class _Graph:
    """All images and verified pairs as arrays, and what is thought of each pair.

    Some 200 bytes an image, 100 a pair: a million images with twenty verified pairs each take two
    gigabytes here, in the driver.
    """

    def __init__(self, run: Run) -> None:
        parts = []
        for shard, entry in image_shards(run).items():
            columns = [*cameras_stage.IMAGE_COLUMNS, *_JUDGED_COLUMNS, "duplicate_of"]
            table = storage.read_table(run.atlas.path(entry.file.path), columns)
            table = table.filter(pc.is_null(table["duplicate_of"]))
            keys = [camera_name(key) for key in camera_keys(table)]
            parts.append(
                table.append_column("shard", pa.array([shard] * table.num_rows, pa.string()))
                .append_column("camera", pa.array(keys, pa.string()))
                .select(["image_id", *_JUDGED_COLUMNS, "shard", "camera"])
            )
        images = pa.concat_tables(parts).sort_by("image_id").combine_chunks()
        self.ids = images["image_id"].to_pylist()
        self.rows = {image: row for row, image in enumerate(self.ids)}
        self.latitude, self.longitude = (
            images[name].to_numpy().astype(np.float64) for name in ("latitude", "longitude")
        )
        self.shard, self.camera = (
            np.array(images[name].to_pylist(), dtype=object) for name in ("shard", "camera")
        )
        self._read_pairs(run, images["image_id"].combine_chunks())
        self.judgement = judge(photographs_of(images, run.options.gps_sigma_m), self.pairs)
        self.trusted = self.judgement.verdict == KEPT

    def _read_pairs(self, run: Run, ids: pa.Array) -> None:
        columns = ["image_id_a", "image_id_b", "configuration", "inliers", *QUATERNION]
        parts, counts, shards = [], [], []
        for name, entry in sorted(run.atlas.ledger(verify_stage.STAGE).items()):
            table = storage.read_table(run.atlas.path(entry.file.path), columns)
            count = inlier_counts(table)
            parts.append(table.drop_columns(["inliers"]).filter(pa.array(count > 0)))
            counts.append(count[count > 0])
            shards.extend([name] * len(counts[-1]))
        nothing = tables.TWO_VIEWS.empty_table().select(columns).drop_columns(["inliers"])
        views = pa.concat_tables([nothing, *(part.cast(nothing.schema) for part in parts)])
        self.pairs = pairs_of(views, ids, np.concatenate([np.zeros(0), *counts]))
        self.pair_shard = np.array(shards, dtype=object)


def reconstruct(run: Run) -> None:
    """Judge the verified pairs, cut the trusted ones into tiles, and map what is new or changed.

    What is thought of each pair is in `work/judged.parquet`, as is what each tile was given of it.
    Where there are no trusted pairs, or all tiles fail, the map is empty.
    """
    options, root = run.options, run.atlas.root
    graph = _Graph(run)
    storage.commit_table(
        root, reconstruct_stage.JUDGED_PATH, judged_table(graph.ids, graph.pairs, graph.judgement)
    )
    trusted, total = int(graph.trusted.sum()), len(graph.trusted)
    log.info("reconstruct: %d of %d verified pairs are trusted", trusted, total)
    ids = np.array(graph.ids, dtype=object)
    tiles = plan_tiles(
        graph.ids,
        graph.latitude,
        graph.longitude,
        ids[graph.pairs.first[graph.trusted]].tolist(),
        ids[graph.pairs.second[graph.trusted]].tolist(),
        graph.pairs.inliers[graph.trusted],
        max_images=options.tile_images,
    )
    if not tiles:
        # What was found still stands: descriptors, index and pairs are there, and the report says
        # of each photograph why it is in no map.
        log.warning(
            "reconstruct: no two photographs see the same scene, so there is nothing to map; "
            "photographs further apart than they can see make no map"
        )
    _forget_given_up(run, int(60 * options.tile_minutes))
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


def _forget_given_up(run: Run, limit_s: int) -> None:
    """Tiles that failed are tried again where they are allowed more time, or less."""
    for name, entry in sorted(run.atlas.ledger(reconstruct_stage.STAGE).items()):
        if entry.counts.get("failed") and entry.counts.get("limit_s", limit_s) != limit_s:
            run.atlas.forget(reconstruct_stage.STAGE, name)


def _tile_task(run: Run, graph: _Graph, tile: Tile) -> Task:
    members = np.array([graph.rows[image] for image in tile.image_ids])
    table = pa.Table.from_arrays(
        [pa.array(tile.image_ids, pa.string()), pa.array(tile.core, pa.bool_())],
        schema=reconstruct_stage.MEMBERS,
    )
    inside = np.zeros(len(graph.ids), bool)
    inside[members] = True
    pairs = inside[graph.pairs.first] & inside[graph.pairs.second]
    judged = judged_table(graph.ids, graph.pairs, graph.judgement, np.flatnonzero(pairs))
    reads: dict[str, list[str]] = defaultdict(list)
    path, judged_path = f"work/tiles/{tile.name}.parquet", f"work/tiles/{tile.name}.judged.parquet"
    file = storage.commit_table(run.atlas.root, path, table)
    judged_file = storage.commit_table(run.atlas.root, judged_path, judged)
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
        fingerprint(
            "reconstruct",
            members=file.digest,
            judged=judged_file.digest,
            gps_sigma_m=run.options.gps_sigma_m,
        ),
        reads=(
            ("members", path),
            ("judged", judged_path),
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
