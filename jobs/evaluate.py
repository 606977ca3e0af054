"""`vladmap evaluate`: how often a model finds the right place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vladmap.console.numbers import whole
from vladmap.evaluation.names import RERANKING
from vladmap.evaluation.settings import EvaluationSettings
from vladmap.jobs.command import Parser, guarded, leave, log_options, parser, words
from vladmap.jobs.evaluation_options import (
    add_model_options,
    add_sequence_option,
    add_set_options,
    method_settings,
    set_settings,
)
from vladmap.models.kinds import MODEL_NAMES

_EPILOG = """\
layouts: <root>/images/{train,val,test}/{database,queries} with names @utm_east@utm_north@zone@...;
MSLS; a CSV of path, latitude, longitude [, condition, side]; the folders database/ and queries/
whose files correspond; an atlas, split by time. Conventions and output: docs/evaluation.md

examples:
  vladmap evaluate worlds --split test --output out/evaluation
  vladmap evaluate walk --layout frames --frames-tolerance 2 --model vlad
  vladmap evaluate msls --split val --model netvlad --checkpoint pitts.pth.tar --whiten 512
  vladmap evaluate atlas --since 2024-05-01 --rerank features
  vladmap evaluate railway --frames-tolerance 3 --model thumbnail --sequence hmm
"""


def command_line() -> Parser:
    """The parser of the job."""
    options = parser(
        "evaluate",
        "Measure place recognition: recall@1/5/10/20/100, mean average precision, precision and\n"
        "recall, for each condition.",
        epilog=_EPILOG,
        json_help="print results.json",
    )
    add_set_options(options)
    add_model_options(options)
    options.add_argument("--model", default="netvlad-lite", choices=MODEL_NAMES)
    options.add_argument("--checkpoint", type=Path, metavar="FILE", help="the model's weights")
    options.add_argument(
        "--learn",
        action="store_true",
        help="learn the words from the database although the checkpoint has its own",
    )
    options.add_argument(
        "--whiten",
        type=whole(0),
        default=0,
        metavar="D",
        help="PCA-whiten descriptors to D numbers",
    )
    options.add_argument(
        "--whiten-split",
        metavar="SPLIT",
        help="split whose database the whitening is fitted on (default: the one searched)",
    )
    options.add_argument(
        "--index",
        "--factory",
        dest="index",
        default="",
        metavar="FACTORY",
        help="search a FAISS index, as IVF1024,Flat, or a k-d tree, kdtree (default: exact search)",
    )
    options.add_argument(
        "--rerank",
        default="none",
        choices=RERANKING,
        help="order the best by patches (rapid, ransac) or by local features: those of --features\n"
        "(features), of a kind, or matched by a network at 25 times the time and more",
    )
    add_sequence_option(options, "store")
    options.add_argument("--output", type=Path, metavar="DIR", help="write results and pages there")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one model on one set; returns the exit code."""
    parsed = command_line().parse_args(words(argv))

    def work() -> int:
        from vladmap.evaluation.measure import evaluate

        evaluate(
            EvaluationSettings(
                photographs=set_settings(parsed),
                method=method_settings(parsed),
                model=parsed.model,
                checkpoint=parsed.checkpoint,
                learn=parsed.learn,
                whiten=parsed.whiten,
                whiten_split=parsed.whiten_split,
                index=parsed.index,
                rerank=parsed.rerank,
                sequence=parsed.sequence or "",
                output=parsed.output,
                json=parsed.json,
            )
        )
        return 0

    return guarded(work, log_options(parsed))


if __name__ == "__main__":
    leave(main)
