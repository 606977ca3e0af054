"""The tasks of the stage `reconstruct`: trusted pairs, the tiles they are cut into."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vladmap.atlas import layout, storage
from vladmap.mapping.camera_keys import camera_keys
from vladmap.mapping.judging import KEPT, judge, judged_table
from vladmap.mapping.photographs import QUATERNION, pairs_of, photographs_of
from vladmap.mapping.tiles import Tile, plan_tiles
from vladmap.mapping.two_view import inlier_counts
from vladmap.pipeline.cameras import camera_name
from vladmap.pipeline.ledgers import image_shards, inputs_of
from vladmap.pipeline.run import Run
from vladmap.pipeline.stage import Step
from vladmap.pipeline.stages.ingest import INGEST
from vladmap.pipeline.stages.reconstruct import RECONSTRUCT
from vladmap.pipeline.stages.verify import CAMERAS, FEATURES, VERIFY
from vladmap.schemas import tables
from vladmap.schemas.records import NO_CELL, Task
from vladmap.transforms.cameras import IMAGE_COLUMNS
from vladmap.transforms.reconstruct import MEMBERS

log = logging.getLogger("vladmap")

_JUDGED_COLUMNS = ["latitude", "longitude", "gps_accuracy_m", "sequence_id", "sequence_index"]


class PairGraph:
    """All images and verified pairs as arrays, and what is thought of each pair.

    Some 200 bytes an image, 100 a pair: a million images with twenty verified pairs each take two
    gigabytes here, in the driver.
    """

    def __init__(self, run: Run) -> None:
        parts = []
        for shard, entry in image_shards(run).items():
            columns = [*IMAGE_COLUMNS, *_JUDGED_COLUMNS, "duplicate_of"]
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

    def _read_pairs(self, run: Run, ids: pa.Array) -> None:
        columns = ["image_id_a", "image_id_b", "configuration", "inliers", *QUATERNION]
        parts, counts, shards = [], [], []
        for name, entry in sorted(run.ledger(VERIFY).items()):
            table = storage.read_table(run.atlas.path(entry.file.path), columns)
            count = inlier_counts(table)
            parts.append(table.drop_columns(["inliers"]).filter(pa.array(count > 0)))
            counts.append(count[count > 0])
            shards.extend([name] * len(counts[-1]))
        nothing = tables.TWO_VIEWS.empty_table().select(columns).drop_columns(["inliers"])
        views = pa.concat_tables([nothing, *(part.cast(nothing.schema) for part in parts)])
        self.pairs = pairs_of(views, ids, np.concatenate([np.zeros(0), *counts]))
        self.pair_shard = np.array(shards, dtype=object)


def plan(run: Run, graph: PairGraph) -> list[Tile]:
    """Write down what is thought of each pair, and cut the trusted ones into tiles."""
    judged = judged_table(graph.ids, graph.pairs, graph.judgement)
    storage.commit_table(run.atlas.root, layout.JUDGED, judged)
    trusted = graph.judgement.verdict == KEPT
    log.info("reconstruct: %d of %d verified pairs are trusted", trusted.sum(), len(trusted))
    ids = np.array(graph.ids, dtype=object)
    return plan_tiles(
        graph.ids,
        graph.latitude,
        graph.longitude,
        ids[graph.pairs.first[trusted]].tolist(),
        ids[graph.pairs.second[trusted]].tolist(),
        graph.pairs.inliers[trusted],
        max_images=run.options.tile_images,
    )


def tile_task(run: Run, graph: PairGraph, tile: Tile) -> Task:
    """Map one tile. Its images, and its pairs as they were judged, are written beside the task."""
    members = np.array([graph.rows[image] for image in tile.image_ids])
    table = pa.Table.from_arrays(
        [pa.array(tile.image_ids, pa.string()), pa.array(tile.core, pa.bool_())], schema=MEMBERS
    )
    inside = np.zeros(len(graph.ids), bool)
    inside[members] = True
    pairs = inside[graph.pairs.first] & inside[graph.pairs.second]
    judged = judged_table(graph.ids, graph.pairs, graph.judgement, np.flatnonzero(pairs))
    root = run.atlas.root
    members_file = storage.commit_table(root, layout.tile_members(tile.name), table)
    judged_file = storage.commit_table(root, layout.tile_judged(tile.name), judged)
    sources: dict[str, tuple[Step, NDArray[np.object_], str]] = {
        "images": (INGEST, graph.shard[members], "map"),
        "features": (FEATURES, graph.shard[members], ""),
        "two_views": (VERIFY, graph.pair_shard[pairs], ""),
        "cameras": (CAMERAS, graph.camera[members], ""),
    }
    reads = [("members", members_file.path), ("judged", judged_file.path)]
    inputs: list[tuple[str, str]] = []
    for role, (step, names, part) in sources.items():
        ledger = run.ledger(step)
        shards = [shard for shard in sorted(set(names.tolist())) if shard in ledger]
        reads += [
            (f"{role}/{number}", ledger[shard].file.path) for number, shard in enumerate(shards)
        ]
        inputs += inputs_of(run, step, shards, part)
    return Task(
        tile.name,
        NO_CELL,
        layout.tile_report(tile.name),
        RECONSTRUCT.fingerprint(
            members=members_file.digest,
            judged=judged_file.digest,
            gps_sigma_m=run.options.gps_sigma_m,
        ),
        reads=tuple(reads),
        inputs=tuple(inputs),
    )
