"""The tasks of the stage `reconstruct`: trusted pairs, the tiles they are cut into."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vladmap.atlas import layout, storage
from vladmap.mapping.camera_keys import IMAGE_COLUMNS, camera_keys, camera_name
from vladmap.mapping.judged_pairs import IMAGE_COLUMNS as JUDGED_COLUMNS
from vladmap.mapping.judged_pairs import PAIR_COLUMNS, JudgedPairs, judge_collection
from vladmap.mapping.judging import JUDGED
from vladmap.mapping.photographs import PHOTOGRAPH_COLUMNS
from vladmap.mapping.tile_inputs import map_alike, members_table
from vladmap.mapping.tiles import Tile
from vladmap.mapping.view_graph.graph_tables import LOOP_FITS
from vladmap.pipeline.ledgers import image_shards, inputs_of
from vladmap.pipeline.local_features import second_reads
from vladmap.pipeline.loops import graph_table, publish_loops
from vladmap.pipeline.run import Run
from vladmap.pipeline.stage import Step
from vladmap.pipeline.stages.ingest import INGEST
from vladmap.pipeline.stages.reconstruct import FIT, RECONSTRUCT
from vladmap.pipeline.stages.verify import CAMERAS, FEATURES, VERIFY
from vladmap.pipeline.verdicts import publish_verdicts
from vladmap.schemas.records import NO_CELL, Task
from vladmap.schemas.rejects import DamagedFile
from vladmap.transforms.fit_pairs import FitPairs

log = logging.getLogger("vladmap")

_GRAPH = "graph"

_IMAGE_COLUMNS = [*IMAGE_COLUMNS, *PHOTOGRAPH_COLUMNS, "duplicate_of"]


def fit_pairs(run: Run) -> None:
    """Bring the fits of all verified pairs to the pose graph up to date, in one task."""
    sources = {
        layout.IMAGES: INGEST,
        layout.FEATURES: FEATURES,
        layout.TWO_VIEWS: VERIFY,
        "cameras": CAMERAS,
    }
    reads: list[tuple[str, str]] = []
    inputs: list[tuple[str, str]] = []
    for role, step in sources.items():
        ledger = run.ledger(step)
        reads += [(role, entry.file.path) for _, entry in sorted(ledger.items())]
        inputs += inputs_of(run, step, sorted(ledger))
    also = second_reads(run, sorted(run.ledger(VERIFY)), sorted(image_shards(run)))
    task = Task(
        _GRAPH,
        NO_CELL,
        layout.PAIR_FITS,
        FIT.fingerprint_of(run.options),
        reads=(*reads, *also[0]),
        inputs=(*inputs, *also[1]),
    )
    pairs = sum(entry.file.rows for entry in run.ledger(VERIFY).values())
    run.execute(
        FIT,
        [task],
        FitPairs(run.atlas.root, run.options.gps_sigma_m),
        count=lambda task: max(1, pairs),
    )
    entry = run.ledger(FIT).get(_GRAPH)
    contradicting = 0 if entry is None else entry.counts.get("contradicting", 0)
    if contradicting:
        log.warning(
            "judge pairs: the pose graph contradicts pairs of photographs in a row, so GPS, "
            "drives and third photographs judge %s pairs instead; are the focal lengths right?",
            f"{contradicting:,}",
        )


def judge_pairs(run: Run) -> JudgedPairs:
    """Judge all verified pairs of the atlas together.

    Write the verdicts to `work/judged.parquet` and into `two_views/`, and the tables of loops and
    drives.
    """
    images = pa.concat_tables(
        _images(shard, storage.read_table(run.atlas.path(entry.file.path), _IMAGE_COLUMNS))
        for shard, entry in image_shards(run).items()
    )
    two_views = (
        (shard, storage.read_table(run.atlas.path(entry.file.path), PAIR_COLUMNS))
        for shard, entry in sorted(run.ledger(VERIFY).items())
    )
    entry = run.ledger(FIT).get(_GRAPH)
    fits = None if entry is None else storage.read_table(run.atlas.path(entry.file.path))
    loops = graph_table(run, layout.LOOP_FITS, LOOP_FITS)
    judged = judge_collection(images, two_views, run.options.gps_sigma_m, fits, loops)
    file = storage.commit_table(run.atlas.root, layout.JUDGED, judged.table())
    publish_verdicts(run, judged, fits)
    publish_loops(run, judged, file.digest, fits)
    trusted = judged.trusted()
    log.info("reconstruct: %d of %d verified pairs are trusted", trusted.sum(), len(trusted))
    return judged


def _images(shard: str, table: pa.Table) -> pa.Table:
    """The rows of a shard that are no duplicates, with the names of their shard and camera."""
    table = table.filter(pc.is_null(table["duplicate_of"]))
    cameras = [camera_name(key) for key in camera_keys(table)]
    table = table.append_column("shard", pa.array([shard] * table.num_rows, pa.string()))
    return table.append_column("camera", pa.array(cameras, pa.string())).select(JUDGED_COLUMNS)


def made_as(run: Run) -> str:
    """How tiles are made, apart from their inputs; a model made otherwise is not continued."""
    return RECONSTRUCT.fingerprint(gps_sigma_m=run.options.gps_sigma_m)


def _before(run: Run, name: str, inputs: Mapping[str, str]) -> list[tuple[str, str]]:
    """The files of a tile as it was, if its one model can be continued.

    It must have been made as tiles are made now, and of what is still the same: keypoints, cameras
    and positions of photographs that it has. Other photographs and pairs make no difference.
    """
    entry = run.ledger(RECONSTRUCT).get(name)
    if entry is None or entry.parts.get("made") != made_as(run) or entry.counts.get("models") != 1:
        return []
    if any(inputs.get(key, value) != value for key, value in entry.inputs.items()):
        return []
    # A photograph that now has keypoints of another kind behind its own has other rows.
    old, new = _feature_kinds(entry.inputs), _feature_kinds(inputs)
    if any(old[shard] != new[shard] for shard in old.keys() & new.keys()):
        return []
    return [("before", file.path) for file in entry.files]


def _feature_kinds(inputs: Mapping[str, str]) -> dict[str, set[str]]:
    """By shard of images, the ledgers of local features that are among a task's inputs."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for key in inputs:
        ledger, _, shard = key.partition("/")
        if ledger.startswith(layout.FEATURES_PREFIX):
            kinds[shard].add(ledger)
    return kinds


def _mapped_from(run: Run, tile: Tile, judged: pa.Table) -> pa.Table:
    """The verdicts that a tile was mapped with, if the same map follows from those of today."""
    try:
        before = storage.read_table(run.atlas.path(layout.tile_judged(tile.name)), JUDGED.names)
    except (OSError, DamagedFile):
        return judged
    return before if map_alike(before, judged) else judged


def tile_task(run: Run, judged: JudgedPairs, tile: Tile) -> Task:
    """Return the task of one tile, and write its images and their judged pairs beside it."""
    members, pairs = judged.rows_of(tile)
    root = run.atlas.root
    members_file = storage.commit_table(
        root,
        layout.tile_members(tile.name),
        members_table(tile, judged.sequence[members], judged.index[members]),
    )
    judged_file = storage.commit_table(
        root, layout.tile_judged(tile.name), _mapped_from(run, tile, judged.table(pairs))
    )
    sources: dict[str, tuple[Step, NDArray[np.object_], str]] = {
        "images": (INGEST, judged.shard[members], "map"),
        "features": (FEATURES, judged.shard[members], ""),
        "two_views": (VERIFY, judged.pair_shard[pairs], ""),
        "cameras": (CAMERAS, judged.camera[members], ""),
    }
    reads = [("members", members_file.path), ("judged", judged_file.path)]
    inputs: list[tuple[str, str]] = []
    for role, (step, names, part) in sources.items():
        ledger = run.ledger(step)
        shards = [shard for shard in sorted(set(names.tolist())) if shard in ledger]
        reads += [(role, ledger[shard].file.path) for shard in shards]
        inputs += inputs_of(run, step, shards, part)
    also = second_reads(
        run, sorted(set(judged.pair_shard[pairs])), sorted(set(judged.shard[members]))
    )
    reads, inputs = [*reads, *also[0]], [*inputs, *also[1]]
    reads += _before(run, tile.name, dict(inputs))
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
