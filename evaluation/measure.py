"""The measurement that `vladmap evaluate` makes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from vladmap.console.results import print_json
from vladmap.evaluation import reranking
from vladmap.evaluation.describing import Descriptors, RunSettings, describe
from vladmap.evaluation.learning import ModelChoice, prepare_model
from vladmap.evaluation.output import Measured, results_of, table, write
from vladmap.evaluation.sets import read_set, read_smoothing
from vladmap.models import DescriptorModel
from vladmap.models.kinds import WITH_PATCHES
from vladmap.models.whitening import Whitening, fit_whitening, whitened
from vladmap.retrieval.names import BY_PATCHES
from vladmap.schemas.rejects import UserError


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
    patches = rerank in BY_PATCHES
    if patches and name not in WITH_PATCHES:
        raise UserError(
            f"{name} has no patches to re-rank by {rerank}: use features, or one of "
            f"{', '.join(WITH_PATCHES)}"
        )
    return ModelChoice(
        name,
        checkpoint,
        learn,
        RunSettings(parsed.device, parsed.precision, os.cpu_count() or 1, lanes),
        parsed.seed,
        parsed.patch_size if patches else 0,
        parsed.patch_dimension if patches else 0,
        parsed.dimension,
        whiten=bool(getattr(parsed, "whiten", 0)),
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
    model, learnt_from = prepare_model(choice, chosen.database.paths)
    by = reranking.computed_evidence(
        parsed.rerank, parsed.features, model, parsed.patch_size, os.cpu_count() or 1
    )
    database = describe(model, chosen.database.paths, choice.run, "database")
    queries = database
    if not chosen.leave_one_out:
        queries = describe(model, chosen.queries.paths, choice.run, "queries")
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
    if parsed.json:
        print_json(results)
    else:
        print(table(measured, results))
    if parsed.output is not None:
        write(parsed.output, parsed.source, measured, results)
        if not parsed.json:
            page = parsed.output / "index.html"
            print(f"\nresults in {parsed.output}; open {page} in a browser")


def _whitening(
    parsed: argparse.Namespace, model: DescriptorModel, choice: ModelChoice, database: Descriptors
) -> Whitening:
    rows = database.rows
    if parsed.whiten_split:
        other = read_set(argparse.Namespace(**vars(parsed) | {"split": parsed.whiten_split}))
        rows = describe(model, other.database.paths, choice.run, parsed.whiten_split).rows
    return fit_whitening(rows[rows.any(axis=1)], parsed.whiten, seed=parsed.seed)
