"""Gather the figures of an atlas into one page: `report/index.html`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vladmap.pipeline.stage import Stage, Step

if TYPE_CHECKING:
    from vladmap.pipeline.run import Run

log = logging.getLogger("vladmap")

REPORT = Step("report")

SHOWN_OPTIONS = ("model", "features", "max_pixels")
"""Options that the page depends on; `check-map` writes it again with the same ones."""


def work(run: Run) -> None:
    """Write the page, unless nothing has changed since it was written."""
    import json

    from vladmap.atlas import layout, storage
    from vladmap.atlas.commit import commit_entry
    from vladmap.pipeline import truth_record
    from vladmap.pipeline.remarks import of_collection
    from vladmap.pipeline.report_data import gather
    from vladmap.reporting.report import render
    from vladmap.schemas.records import NO_CELL, Task

    stages = run.atlas.manifest["stages"]
    inputs = [f"{name} {stages[name]}" for name in sorted(stages) if name != REPORT.name]
    inputs.append(truth_record.stored_identity(run))
    inputs += of_collection(run)
    choices = {name: getattr(run.options, name) for name in SHOWN_OPTIONS}
    run.atlas.manifest["report"] = choices
    inputs.append(json.dumps(choices, sort_keys=True))
    timings = json.dumps(run.timings(), sort_keys=True)
    fingerprint = storage.combined_digest([*inputs, timings])
    task = Task("index", NO_CELL, layout.REPORT_PAGE, fingerprint)
    if not run.todo(REPORT, [task]):
        log.info("report: nothing to do")
        return
    page = render(gather(run)).encode()
    file = storage.commit_file(run.atlas.root, task.output, page, 1)
    commit_entry(run.atlas.root, REPORT.ledger_name(run.options), task, [file])
    log.info("report: %s", run.atlas.path(task.output))


STAGE = Stage(
    name="report",
    title="write the atlas's report",
    text="Write the report: report/index.html.",
    work=work,
    steps=(REPORT,),
    needs=("ingest",),
    options=SHOWN_OPTIONS,
    examples=("vladmap report --atlas atlas",),
)
