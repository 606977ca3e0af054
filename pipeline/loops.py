"""Writing `loops.parquet` and `drives.parquet`: what the judged pairs say of the drives."""

from __future__ import annotations

import logging

import pyarrow as pa
import pyarrow.compute as pc

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_entry
from vladmap.console.progress import counted
from vladmap.mapping.judged_pairs import JudgedPairs
from vladmap.mapping.loops import IMAGE_COLUMNS, drives_table, loops_table
from vladmap.mapping.view_graph.graph_tables import GRAPH_POSES, LOOP_FITS
from vladmap.pipeline.ledgers import image_shards, inputs_of
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages.ingest import INGEST
from vladmap.pipeline.stages.reconstruct import FIT, LOOPS
from vladmap.schemas.records import NO_CELL, Task

log = logging.getLogger("vladmap")

_NAME = "loops"


def publish_loops(run: Run, judged: JudgedPairs, judged_digest: str, fits: pa.Table | None) -> None:
    """Write both tables, unless nothing that they are made from has changed.

    `judged_digest` is the identity of the verdicts. They are rows on pairs, some hundred bytes
    each: no work for more than this process.
    """
    images = image_shards(run)
    task = Task(
        _NAME,
        NO_CELL,
        layout.LOOPS,
        LOOPS.fingerprint(judged=judged_digest),
        inputs=(*inputs_of(run, INGEST, images), *inputs_of(run, FIT, sorted(run.ledger(FIT)))),
    )
    if not run.todo(LOOPS, [task]):
        return
    root = run.atlas.root
    rows = pa.concat_tables(
        storage.read_table(run.atlas.path(entry.file.path), [*IMAGE_COLUMNS, "duplicate_of"])
        for entry in images.values()
    )
    rows = rows.filter(pc.is_null(rows["duplicate_of"])).sort_by("image_id").combine_chunks()
    loop_fits = graph_table(run, layout.LOOP_FITS, LOOP_FITS)
    poses = graph_table(run, layout.GRAPH_POSES, GRAPH_POSES)
    loops = loops_table(judged, rows, fits, loop_fits, poses)
    drives = drives_table(rows, poses)
    files = [
        storage.commit_table(root, layout.LOOPS, loops),
        storage.commit_table(root, layout.DRIVES, drives),
    ]
    kept = int(pc.sum(loops["kept"].cast(pa.int64())).as_py() or 0)
    counts = {"loops": loops.num_rows, "kept": kept, "drives": drives.num_rows}
    content = storage.combined_digest(file.digest for file in files)
    commit_entry(root, LOOPS.ledger_name(run.options), task, files, content=content, counts=counts)
    run.ledger(LOOPS, refresh=True)
    log.info("loops: %s between drives, %d kept", counted(loops.num_rows, "pairs"), kept)


def graph_table(run: Run, path: str, schema: pa.Schema) -> pa.Table:
    """A table that the step which judges pairs wrote beside its own; empty where there is none."""
    for entry in run.ledger(FIT).values():
        if any(file.path == path for file in entry.files):
            return storage.read_table(run.atlas.path(path)).cast(schema)
    return schema.empty_table()
