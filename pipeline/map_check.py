"""The comparison that `vladmap check-map` makes."""

from __future__ import annotations

from typing import Any

from vladmap.atlas.store import AtlasStore
from vladmap.console.results import print_json
from vladmap.evaluation.map_truth import read_truth
from vladmap.mapping.check import format_check
from vladmap.pipeline import truth_record
from vladmap.pipeline.ledgers import image_shards
from vladmap.pipeline.manifest import record
from vladmap.pipeline.report_data import options_shown
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import STAGES, report
from vladmap.reporting.truth_section import recall_lines
from vladmap.schemas.rejects import UserError


def check(root: str, path: str, as_json: bool = False) -> None:
    """Compare an atlas with a truth file; print the result and show it in the report."""
    atlas = AtlasStore.open(root, create=False)
    run = Run(atlas, options_shown(atlas))
    atlas.require(
        ledger
        for name in ("ingest", "describe", "merge")
        for ledger in STAGES[name].ledger_names(run.options)
    )
    measured = truth_record.measure(run, read_truth(path))
    if as_json:
        print_json({"atlas": run.atlas.root, **measured})
    else:
        print(format_check(measured["map"]))
        print(recall_lines(measured["retrieval"], run.options.model), flush=True)
    show(run, measured)


def show(run: Run, measured: dict[str, Any]) -> None:
    """Store a comparison in the atlas and write its report again.

    Raises UserError where the atlas cannot be written or another run has it.
    """
    try:
        with run.atlas.locked():
            truth_record.store(run, measured)
            # A copy of the poses without a ledger has nothing else that a report could show.
            if image_shards(run):
                report.work(run)
                record(run, "report")
    except OSError as error:
        raise UserError(
            f"{run.atlas.root} cannot be written ({error}): its report does not have these figures"
        ) from error
