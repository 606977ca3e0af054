"""`vladmap check-map`: how far an atlas is from the truth."""

from __future__ import annotations

from collections.abc import Sequence

from vladmap.atlas.layout import REPORT_TRUTH
from vladmap.evaluation.names import BESIDE
from vladmap.jobs.command import Parser, guarded, leave, log_options, parser, words
from vladmap.retrieval.names import RIGHT_DEG, RIGHT_M

_EPILOG = f"""\
Retrieval: each image is looked for among the others by its descriptor of the model that the report
shows. A match is right within {RIGHT_M:g} m of the query's true place and
{RIGHT_DEG:g} degrees of its true heading. Images of the query's sequence within
{BESIDE:g} s of it (where times are missing, within {BESIDE:g} places) are left out.

The figures are kept in {REPORT_TRUTH} in the atlas, and the report is made anew with them:
report/index.html, "Against the truth".

example:
  vladmap check-map --atlas atlas --truth city/truth.parquet
"""


def command_line() -> Parser:
    """The parser of the job."""
    options = parser(
        "check-map",
        "Compare an atlas with the truth: registered share, position and rotation error of its\n"
        "map, recall@1/5/10/20 of its retrieval.",
        epilog=_EPILOG,
        json_help="print the figures as a JSON object",
    )
    options.add_argument("--atlas", required=True, metavar="DIR", help="folder of the atlas")
    options.add_argument(
        "--truth",
        required=True,
        metavar="FILE",
        help="Parquet table of poses, as `vladmap sample` writes it",
    )
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Print the comparison and show it in the report; returns the exit code."""
    parsed = command_line().parse_args(words(argv))

    def work() -> int:
        from vladmap.pipeline.map_check import check

        check(parsed.atlas, parsed.truth, parsed.json)
        return 0

    return guarded(work, log_options(parsed))


if __name__ == "__main__":
    leave(main)
