"""List the collection, read what is new in it, and bring `images/` up to date."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vladmap.pipeline.stage import Stage, Step

if TYPE_CHECKING:
    import pyarrow as pa

    from vladmap.pipeline.run import Run

log = logging.getLogger("vladmap")

# From version 2 on, cells of few photographs share shards; generations planned before keep theirs.
PLAN = Step("plan", version=2, internal=True)
SCAN = Step(
    "scan",
    version=8,
    label="ingest",
    unit="images",
    internal=True,
    settings=lambda options: {"max_pixels": options.max_pixels},
    told=True,
)
INGEST = Step(
    "ingest",
    version=6,
    label="organise",
    light=True,
    settings=lambda options: {
        "shard_images": options.shard_images,
        "cell_resolution": options.cell_resolution,
        "gaps": (options.sequence_gap_s, options.sequence_gap_m),
    },
)
CUT = ("organise:shard_images", "organise:cell_resolution")
"""Which of those settings put images into other shards: `after` of the steps that work by shard."""

_ORGANISED = "organise"
"""The ledger of the one entry that records from which headers `images/` was made."""

_NOTES = {
    "invalid_positions": "have a position that cannot be used, and count as without one",
    "invalid_facts": "have a heading, height, accuracy or focal length that cannot be used",
    "panoramas": "are panoramas: found by retrieval, not mapped (column projection)",
    "zones_of_neighbours": "have the time zone of their camera's other frames in the folder",
    "zones_unknown": "have a capture time without a zone, taken for UTC (column time_source)",
}
"""The sentence that is logged for each count in the ledger."""


def work(run: Run) -> None:
    """Raises UserError where there are no photographs, or too many of them are rejected."""
    from vladmap.atlas import layout
    from vladmap.console.progress import counted
    from vladmap.pipeline.collection import list_collection
    from vladmap.pipeline.ledgers import image_shards, inputs_of
    from vladmap.pipeline.options import worker_threads
    from vladmap.pipeline.planning import plan
    from vladmap.pipeline.rejects import check_rejects, unreadable_since_ingest
    from vladmap.schemas.records import NO_CELL, Task
    from vladmap.transforms.ingest import ScanPhotos

    options = run.options
    listing = list_collection(options.images)
    doubtful = unreadable_since_ingest(run)
    if doubtful:
        log.info(
            "ingest: %s read again: a later stage did not find them as they were",
            counted(len(doubtful), "photographs"),
        )
    planned = plan(run.atlas, listing, options.shard_images, write=True, doubtful=doubtful)
    for note in listing.notes:
        log.info("ingest: %s", note)
    run.atlas.manifest["collection_notes"] = list(listing.notes)
    scans = [
        Task(
            chunk,
            NO_CELL,
            layout.headers(chunk),
            SCAN.fingerprint_of(options),
            reads=(("plan", path),),
            inputs=inputs_of(run, PLAN, [chunk.partition("-")[0]]),
        )
        for chunk, path in planned.chunks
        if planned.alive.get(chunk)
    ]
    run.execute(
        SCAN,
        scans,
        ScanPhotos(run.atlas.root, options.max_pixels, worker_threads(options, run.in_process)),
        count=lambda task: planned.alive[task.shard],
    )
    _organise(run, [task.shard for task in scans], planned.dead)
    run.atlas.manifest["collection"] = listing.root
    shards = image_shards(run).values()
    for name, words in _NOTES.items():
        if count := sum(entry.counts.get(name, 0) for entry in shards):
            log.info("ingest: %d photographs %s", count, words)
    check_rejects(
        run,
        "ingest",
        sum(entry.counts.get("rejects", 0) for entry in run.ledger(INGEST).values()),
        sum(entry.counts["images"] for entry in shards),
    )


def _organise(run: Run, chunks: Sequence[str], dead: pa.Table) -> None:
    """Find duplicates, sequences and cells, and write the shards of `images/`.

    They depend on the headers of the whole collection: if any of these changed, all is done again.
    """
    from vladmap.atlas import layout, storage
    from vladmap.atlas.commit import commit_entry
    from vladmap.schemas.records import NO_CELL, Task
    from vladmap.transforms.ingest import OrganiseImages

    options, atlas = run.options, run.atlas
    file = storage.commit_table(atlas.root, layout.DEAD, dead)
    scans = run.ledger(SCAN)
    joining = frozenset(
        name for name, entry in run.ledger(PLAN).items() if entry.fingerprint == PLAN.fingerprint()
    )
    identity = INGEST.fingerprint_of(
        options,
        scans=[(chunk, scans[chunk].content) for chunk in chunks],
        dead=file.digest,
        **({"joining": sorted(joining)} if joining else {}),
    )
    ledger = run.ledger(INGEST)
    made = atlas.ledger(_ORGANISED).get("all")
    whole = made is not None and made.counts["shards"] == len(ledger)
    if whole and made is not None and made.fingerprint == identity:
        return
    tasks = [
        Task(chunk, NO_CELL, "", identity, reads=(("headers", scans[chunk].file.path),))
        for chunk in chunks
    ]
    transform = OrganiseImages(
        atlas.root,
        identity,
        options.shard_images,
        options.cell_resolution,
        options.sequence_gap_s,
        options.sequence_gap_m,
        file.path,
        joining,
    )
    rows = sum(scans[chunk].file.rows for chunk in chunks)
    run.pipeline(tasks, INGEST.title, transform, here=run.is_light(INGEST, rows))
    ledger = run.ledger(INGEST, refresh=True)
    run.forget_others(
        INGEST, {shard for shard, entry in ledger.items() if entry.fingerprint == identity}
    )
    counts = {"shards": len(run.ledger(INGEST))}
    commit_entry(
        atlas.root, _ORGANISED, Task("all", NO_CELL, file.path, identity), [file], counts=counts
    )


STAGE = Stage(
    name="ingest",
    title="read, check and place the photographs",
    text="Read, check and place the photographs: images/ and rejects/.",
    work=work,
    steps=(PLAN, SCAN, INGEST),
    options=(
        "images",
        "max_pixels",
        "max_reject_rate",
        "shard_images",
        "cell_resolution",
        "sequence_gap_s",
        "sequence_gap_m",
        "threads",
    ),
    group="photographs (ingest)",
    examples=("vladmap ingest --atlas atlas --images photos",),
)
