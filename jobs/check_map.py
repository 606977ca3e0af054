"""`vladmap check-map`: how far an atlas is from the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.command import guarded, leave, parser, words
from mapping.check import format_check
from pipeline import truth
from pipeline.atlas import Atlas
from pipeline.build import record
from pipeline.report_stage import options_shown, report
from pipeline.run import Run
from pipeline.stages import image_shards
from reporting.truth import recall_lines
from retrieval.truth import RIGHT_DEG, RIGHT_M
from schemas import tables
from schemas.rejects import UserError

_EPILOG = f"""\
Retrieval: each image is looked for among the others by its descriptor of the model that the report
shows. A match is right within {RIGHT_M:g} m of the query's true place and
{RIGHT_DEG:g} degrees of its true heading. Images of the query's sequence within
{truth.BESIDE:g} s of it (where times are missing, within {truth.BESIDE:g} places) are left out.

The figures are kept in {truth.PATH} in the atlas, and the report is made anew with them:
report/index.html, "Against the truth".

example:
  vladmap check-map --atlas atlas --truth city/truth.parquet
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the comparison and show it in the report; returns the exit code."""
    options = parser(
        "check-map",
        "Compare an atlas with the truth: registered share, position and rotation error of its\n"
        "map, recall@1/5/10/20 of its retrieval.",
        epilog=_EPILOG,
    )
    options.add_argument("--atlas", required=True, metavar="DIR", help="folder of the atlas")
    options.add_argument(
        "--truth",
        required=True,
        metavar="FILE",
        help="Parquet table of poses, as `vladmap sample` writes it",
    )
    parsed = options.parse_args(words(argv))

    def work() -> int:
        atlas = Atlas.open(parsed.atlas, create=False)
        run = Run(atlas, options_shown(atlas))
        measured = truth.measure(run, read_truth(parsed.truth))
        print(format_check(measured["map"]))
        print(recall_lines(measured["retrieval"], run.options.model), flush=True)
        show(run, measured)
        return 0

    return guarded(work, parsed)


def show(run: Run, measured: dict[str, Any]) -> None:
    """Keep a comparison in the atlas and make its report anew.

    Raises UserError where the atlas cannot be written or another run has it.
    """
    try:
        with run.atlas.locked():
            truth.store(run, measured)
            # Without a ledger there are poses, but nothing that a report could show.
            if image_shards(run):
                report(run)
                record(run, "report")
    except OSError as error:
        raise UserError(
            f"{run.atlas.root} cannot be written ({error}): its report does not have these figures"
        ) from error


def read_truth(path: str) -> pa.Table:
    """A truth table. Raises UserError where it is none, naming the columns that it lacks."""
    try:
        table = pq.read_table(Path(path))
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"--truth {path}: {str(error).splitlines()[0]}") from error
    missing = sorted(set(tables.TRUTH.names) - set(table.column_names))
    if missing:
        raise UserError(f"--truth {path} lacks the columns {', '.join(missing)}")
    return table


if __name__ == "__main__":
    leave(main)
