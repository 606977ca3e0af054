"""The tasks of the stage `pair`: which shards each shard is paired with, and how candidates are
re-ranked.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from vladmap.atlas import layout, storage
from vladmap.atlas.shard_lists import ListedShard, commit_shard_list
from vladmap.features.names import RERANKING_BY_FEATURES
from vladmap.photos.cells import Nearby
from vladmap.pipeline.indexing import shards_around
from vladmap.pipeline.ledgers import image_shards, inputs_of
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages.describe import DESCRIBE
from vladmap.pipeline.stages.index import INDEX
from vladmap.pipeline.stages.ingest import INGEST
from vladmap.pipeline.stages.pair import PAIR
from vladmap.pipeline.stages.verify import FEATURES
from vladmap.retrieval.neighbours import STOP_COLUMNS, neighbour_ids
from vladmap.schemas.records import Task, shard_cell
from vladmap.schemas.rejects import UserError
from vladmap.transforms.pair import PairSettings
from vladmap.transforms.rerank import RerankSettings


def pair_tasks(run: Run) -> list[Task]:
    """One task for each shard: pair its images with those of the same shard and of earlier ones."""
    descriptors = dict(sorted(run.ledger(DESCRIBE).items()))
    sequences = _sequences(run)
    nearby: Nearby[str] = Nearby()
    tasks = []
    for shard in descriptors:
        nearby.add(shard_cell(shard), shard)
        # Shards come in the order of their names: what is in `nearby` came before, or is itself.
        around = shards_around(shard, nearby)
        fingerprint = PAIR.fingerprint_of(run.options, sequences=sequences.get(shard, ""))
        tasks.append(
            Task(
                shard,
                shard_cell(shard),
                layout.pairs(shard),
                fingerprint,
                reads=tuple(
                    run.shared((layout.DESCRIPTORS, descriptors[near].file.path)) for near in around
                ),
                inputs=(
                    *inputs_of(run, DESCRIBE, around),
                    *inputs_of(run, INGEST, around, "places"),
                ),
            )
        )
    return tasks


def pair_settings(run: Run, rerank: RerankSettings) -> PairSettings:
    """The settings of the transform PairImages, which are the same for all its tasks."""
    options = run.options
    descriptors = run.ledger(DESCRIBE)
    listed = []
    for shard, entry in image_shards(run).items():
        made = descriptors.get(shard)
        rows, content = (made.file.rows, made.content) if made else (0, "")
        listed.append(ListedShard(shard, entry.file.path, rows, content))
    return PairSettings(
        model=options.model,
        near=options.near,
        reach_m=options.reach_m,
        everywhere=options.everywhere,
        following=options.following,
        gps_sigma_m=options.gps_sigma_m,
        stage=DESCRIBE.ledger_name(options),
        index=run.ledger(INDEX)["global"].content,
        shards=commit_shard_list(run.atlas.root, "pair", listed),
        rerank=rerank,
        device=options.device,
    )


def _sequences(run: Run) -> dict[str, str]:
    """Identity of the neighbours in sequences of each shard's images; they may lie in any shard.

    Computed in the driver, which reads three short columns of all images.
    """
    parts, shards = [], image_shards(run)
    for place, entry in enumerate(shards.values()):
        table = storage.read_table(run.atlas.path(entry.file.path), STOP_COLUMNS)
        places = pa.array(np.full(table.num_rows, place, np.int32))
        parts.append(table.append_column("shard", places))
    pairs = neighbour_ids(pa.concat_tables(parts), list(shards), run.options.following)
    return {shard: storage.digest(ids.tobytes()) for shard, ids in pairs}


def rerank_settings(run: Run) -> RerankSettings:
    """The evidence that candidates are re-ranked by: patches, or local features.

    Features that are missing are extracted here.

    Raises UserError where the atlas has no patches, or too many photographs no features.
    """
    options = run.options
    if options.rerank == "none":
        return RerankSettings()
    if options.rerank in RERANKING_BY_FEATURES:
        # Brings COLMAP and torch, which pairs by descriptor do without.
        from vladmap.pipeline.local_features import extract_features

        step, entries = FEATURES, extract_features(run)
        paths = {shard: entry.file.path for shard, entry in entries.items()}
    else:
        step, entries = DESCRIBE, run.ledger(DESCRIBE)
        folder = f"{layout.patches_folder(options.model)}/"
        paths = {
            shard: file.path
            for shard, entry in entries.items()
            for file in entry.files
            if file.path.startswith(folder)
        }
        if len(paths) < len(entries):
            raise UserError(
                f"pair: {run.atlas.root} has no patches: run `vladmap describe --rerank "
                f"{options.rerank}` first"
            )
    listed = (
        ListedShard(shard, path, entries[shard].file.rows, entries[shard].content)
        for shard, path in sorted(paths.items())
    )
    return RerankSettings(
        options.rerank,
        options.rerank_candidates,
        options.features,
        step.ledger_name(options),
        commit_shard_list(run.atlas.root, "evidence", listed),
        options.device,
    )
