"""`vladmap evaluate`: how often a model finds the right place."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from jobs import reranking
from jobs.command import guarded, leave, parser, words
from jobs.describing import Described, ModelChoice, described, ready
from jobs.evaluation_output import Measured, results_of, table, write
from jobs.evaluation_set import add_set_options, read_set, read_smoothing
from models import MODEL_NAMES, DescriptorModel
from models.registry import WITH_PATCHES
from models.whitening import Whitening, fit_whitening, whitened
from schemas.rejects import UserError

_EPILOG = """\
layouts: <root>/images/{train,val,test}/{database,queries} with names @utm_east@utm_north@zone@...;
MSLS; a CSV of path, latitude, longitude [, condition, side]; the folders database/ and queries/
whose files correspond; an atlas, split by time. Conventions and output: docs/evaluation.md

examples:
  vladmap evaluate worlds --split test --output out/evaluation
  vladmap evaluate walk --layout frames --frames-tolerance 2 --model vlad
  vladmap evaluate msls --split val --model netvlad --checkpoint pitts.pth.tar --whiten 512
  vladmap evaluate atlas --since 2024-05-01 --rerank features
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one model on one set; returns the exit code."""
    options = parser(
        "evaluate",
        "Measure place recognition: recall@1/5/10/20/100, mean average precision, precision and\n"
        "recall, for each condition.",
        epilog=_EPILOG,
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
        "--whiten", type=int, default=0, metavar="D", help="PCA-whiten descriptors to D numbers"
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
        help="search a FAISS index, as IVF1024,Flat (default: exact search)",
    )
    options.add_argument(
        "--rerank",
        default="none",
        choices=reranking.METHODS,
        help="order the best by patches (rapid, ransac) or local features (features, which are\n"
        "XFeat's, sift, or lighterglue: XFeat's matched by a network, 25 times the time)",
    )
    options.add_argument("--output", type=Path, metavar="DIR", help="write results and pages there")
    parsed = options.parse_args(words(argv))

    def work() -> int:
        evaluate(parsed)
        return 0

    return guarded(work, parsed)


def add_model_options(options: argparse.ArgumentParser) -> None:
    """How models run, and re-ranking: alike for every job that measures."""
    options.add_argument(
        "--precision", default="float32", choices=("float32", "bfloat16", "float16")
    )
    options.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options.add_argument("--seed", type=int, default=0, help="of what is learnt (default: 0)")
    options.add_argument(
        "--rerank-candidates",
        type=int,
        default=20,
        metavar="C",
        help="best matches that re-ranking puts in order (default: 20)",
    )
    options.add_argument(
        "--dimension",
        type=int,
        metavar="D",
        help="numbers that a descriptor is reduced to where words are learnt, 0 for no reduction\n"
        "(default: what suits the model)",
    )
    options.add_argument("--patch-size", type=int, default=5, help="cells (default: 5)")
    options.add_argument(
        "--patch-dimension",
        type=int,
        default=512,
        help="numbers of a patch, where its whitening is learnt (default: 512)",
    )


def model_choice(
    parsed: argparse.Namespace,
    name: str,
    checkpoint: Path | None,
    rerank: str,
    *,
    learn: bool = False,
    lanes: int = 1,
) -> ModelChoice:
    """The choice that the options of `add_model_options` make for a model."""
    if parsed.rerank_candidates < 1 or parsed.patch_size < 1 or parsed.patch_dimension < 1:
        raise UserError("--rerank-candidates, --patch-size and --patch-dimension are at least 1")
    if parsed.dimension is not None and parsed.dimension < 0:
        raise UserError("--dimension is at least 1, or 0 for no reduction")
    patches = rerank in reranking.BY_PATCHES
    if patches and name not in WITH_PATCHES:
        raise UserError(
            f"{name} has no patches to re-rank by {rerank}: use features, or one of "
            f"{', '.join(WITH_PATCHES)}"
        )
    return ModelChoice(
        name,
        checkpoint,
        learn,
        parsed.device,
        parsed.precision,
        os.cpu_count() or 1,
        lanes,
        parsed.seed,
        parsed.patch_size if patches else 0,
        parsed.patch_dimension if patches else 0,
        0 if getattr(parsed, "whiten", 0) else parsed.dimension,
    )


def evaluate(parsed: argparse.Namespace) -> None:
    """Measure, print the table, and write what `--output` asks for."""
    chosen = read_set(parsed)
    smoothing = read_smoothing(parsed, chosen)
    choice = model_choice(
        parsed,
        parsed.model,
        parsed.checkpoint,
        parsed.rerank,
        learn=parsed.learn,
        lanes=os.cpu_count() or 1,
    )
    model, learnt_from = ready(choice, chosen.database.paths)
    by = reranking.evidence(parsed.rerank, model, parsed.patch_size, os.cpu_count() or 1)
    database = described(model, chosen.database.paths, choice, "database")
    queries = database
    if not chosen.leave_one_out:
        queries = described(model, chosen.queries.paths, choice, "queries")
    found = [database.rows, queries.rows]
    whitening = None
    if parsed.whiten:
        whitening = _whitening(parsed, model, choice, database)
        found = [whitened(rows, whitening) for rows in found]
    ranking, _ = reranking.ranked(
        found[1], found[0], chosen, smoothing, by, parsed.rerank_candidates, parsed.index
    )
    measured = Measured(chosen, ranking, database, queries, smoothing)
    results = results_of(parsed, measured, model, learnt_from, whitening)
    print(table(measured, results))
    if parsed.output is not None:
        write(parsed.output, parsed.source, measured, results)


def _whitening(
    parsed: argparse.Namespace, model: DescriptorModel, choice: ModelChoice, database: Described
) -> Whitening:
    rows = database.rows
    if parsed.whiten_split:
        other = read_set(argparse.Namespace(**vars(parsed) | {"split": parsed.whiten_split}))
        rows = described(model, other.database.paths, choice, parsed.whiten_split).rows
    return fit_whitening(rows[rows.any(axis=1)], parsed.whiten, seed=parsed.seed)


if __name__ == "__main__":
    leave(main)
