"""`vladmap compare`: methods of place recognition measured side by side on the same photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vladmap.evaluation.names import METHODS, RERANKING
from vladmap.evaluation.settings import ComparisonSettings
from vladmap.jobs.command import Parser, guarded, leave, log_options, parser, words
from vladmap.jobs.evaluation_options import (
    add_model_options,
    add_sequence_option,
    add_set_options,
    method_settings,
    set_settings,
)

_EPILOG = f"""\
A method is a model, with +none, +{", +".join(RERANKING[1:])} to re-rank its best, and with
=FILE where it needs a checkpoint. Those whose weights are not there are listed as left out.
Milliseconds of an image are its description, reading and decoding left out; those of a query are
the exact search and the comparisons of re-ranking. Bytes are as an atlas stores them.

methods of the table: {", ".join(METHODS[:6])},
  {", ".join(METHODS[6:])}

examples:
  vladmap compare worlds --split test --output out/comparison
  vladmap compare walk --frames-tolerance 2 --method vlad --method netvlad=pitts.pth.tar
  vladmap compare railway --frames-tolerance 3 --method thumbnail --sequence seqslam --sequence hmm
"""


def command_line() -> Parser:
    """The parser of the job."""
    options = parser(
        "compare",
        "Measure methods of place recognition side by side: recall@1 and @5, bytes an image,\n"
        "milliseconds an image and a query, recall@1 by condition.",
        epilog=_EPILOG,
        json_help="print the table's rows as a JSON object",
    )
    add_set_options(options)
    add_model_options(options)
    options.add_argument(
        "--method",
        action="append",
        metavar="NAME[+RERANK][=FILE]",
        help="one or more methods; one of the table's names with =FILE gives it its checkpoint",
    )
    add_sequence_option(options, "append")
    options.add_argument(
        "--index",
        action="append",
        metavar="FACTORY",
        help="a further row of each method by FAISS index or kdtree; its making is in ms/query",
    )
    options.add_argument("--all", action="store_true", help="the table's other methods as well")
    options.add_argument("--output", type=Path, metavar="DIR", help="write table and plot there")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Measure each method; returns the exit code."""
    parsed = command_line().parse_args(words(argv))

    def work() -> int:
        from vladmap.evaluation.comparison import compare

        compare(
            ComparisonSettings(
                photographs=set_settings(parsed),
                method=method_settings(parsed),
                methods=tuple(parsed.method or ()),
                sequences=tuple(parsed.sequence or ()),
                indexes=tuple(parsed.index or ()),
                all=parsed.all,
                output=parsed.output,
                json=parsed.json,
            )
        )
        return 0

    return guarded(work, log_options(parsed))


if __name__ == "__main__":
    leave(main)
