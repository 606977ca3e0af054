"""Join the tiles' models where they agree: `model/`, `poses.parquet`, `unregistered.parquet`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vladmap.pipeline.stage import Stage, Step

if TYPE_CHECKING:
    from vladmap.pipeline.run import Run

log = logging.getLogger("vladmap")

MERGE = Step(
    "merge",
    version=14,
    unit="images",
    alone=True,
    settings=lambda options: {"gps_sigma_m": options.gps_sigma_m},
    told=True,
    after=("organise", "describe", "pair", "features", "verify", "reconstruct"),
)


def work(run: Run) -> None:
    """Merge the tiles in one task.

    `unregistered.parquet` gives the reason for every photograph without a pose; for it the task
    reads results of all earlier stages.
    """
    from vladmap.atlas import layout
    from vladmap.pipeline.ledgers import image_shards, inputs_of, reject_paths
    from vladmap.pipeline.options import worker_threads
    from vladmap.pipeline.stages.describe import DESCRIBE
    from vladmap.pipeline.stages.ingest import INGEST
    from vladmap.pipeline.stages.pair import PAIR
    from vladmap.pipeline.stages.reconstruct import RECONSTRUCT
    from vladmap.pipeline.stages.verify import FEATURES, VERIFY
    from vladmap.schemas.records import NO_CELL, Task
    from vladmap.transforms.merge import MergeTiles
    from vladmap.transforms.reconstruct import map_memory

    images, options = image_shards(run), run.options
    task = Task(
        "model",
        NO_CELL,
        layout.MERGE_REPORT,
        MERGE.fingerprint_of(options),
        reads=(
            *((layout.IMAGES, entry.file.path) for entry in images.values()),
            *(
                (layout.TILES, file.path)
                for _, entry in sorted(run.ledger(RECONSTRUCT).items())
                for file in entry.files
            ),
            *((layout.REJECTS, path) for path in reject_paths(run)),
            *(
                (role, entry.file.path)
                for role, step in ((layout.PAIRS, PAIR), (layout.TWO_VIEWS, VERIFY))
                for _, entry in sorted(run.ledger(step).items())
            ),
        ),
        inputs=tuple(
            item
            for step in (INGEST, DESCRIBE, FEATURES, PAIR, VERIFY, RECONSTRUCT)
            for item in inputs_of(run, step, sorted(run.ledger(step)))
        )
        + inputs_of(run, VERIFY, sorted(run.ledger(VERIFY)), "judgement"),
    )
    count = sum(entry.counts["images"] for entry in images.values())
    ledger = run.execute(
        MERGE,
        [task],
        MergeTiles(
            run.atlas.root,
            str(run.atlas.manifest.get("collection", "")),
            options.gps_sigma_m,
            options.max_pixels,
            worker_threads(options, run.in_process),
        ),
        count=lambda task: max(1, count),
        memory=map_memory(count),
    )
    _log_counts(ledger["model"].counts)


def _log_counts(counts: Mapping[str, int]) -> None:
    missing, total = counts["unregistered"], counts["unregistered"] + counts["registered"]
    if missing:
        log.log(
            logging.INFO if counts["registered"] else logging.WARNING,
            "merge: %d of %d photographs are not in the map: see the report, and for each one "
            "unregistered.parquet",
            missing,
            total,
        )
    if counts["doubtful"]:
        log.warning(
            "merge: %d photographs of the map must not be used: poses.parquet says why (doubt)",
            counts["doubtful"],
        )
    if counts["unreadable"]:
        log.warning(
            "merge: %d photographs cannot be read any more, their points have no colour from them: "
            "model/merge.json names them",
            counts["unreadable"],
        )


STAGE = Stage(
    name="merge",
    title="join the tiles' models, write poses",
    text="Join the tiles' models: model/, poses.parquet.",
    work=work,
    steps=(MERGE,),
    needs=("ingest", "reconstruct"),
    options=("max_pixels", "model", "threads", "gps_sigma_m", "features"),
    examples=("vladmap merge --atlas atlas",),
)
