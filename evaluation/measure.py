"""The measurement that `vladmap evaluate` makes."""

from __future__ import annotations

import os
from pathlib import Path

from vladmap.console.results import print_json
from vladmap.evaluation import reranking
from vladmap.evaluation.describing import Descriptors, RunSettings, describe
from vladmap.evaluation.learning import ModelChoice, prepare_model
from vladmap.evaluation.metrics import Measured, results_of
from vladmap.evaluation.output import table, write
from vladmap.evaluation.sequences import check_drives, method_of, ranked_in_drives
from vladmap.evaluation.sets import read_set, smoothing_for
from vladmap.evaluation.settings import EvaluationSettings, MethodSettings
from vladmap.models import DescriptorModel
from vladmap.models.kinds import WITH_PATCHES
from vladmap.models.whitening import Whitening, fit_whitening, whitened
from vladmap.retrieval.names import BY_PATCHES
from vladmap.schemas.rejects import UserError


def model_choice(
    method: MethodSettings,
    name: str,
    checkpoint: Path | None,
    rerank: str,
    *,
    learn: bool = False,
    lanes: int = 1,
    whiten: bool = False,
) -> ModelChoice:
    """The model `name` as it is measured where candidates are re-ranked in the way `rerank`.

    Raises UserError for a model that has no patches to re-rank by, and for a GPU that is to decode
    and not to compute.
    """
    if method.decode == "gpu" and method.device == "cpu":
        raise UserError("--decode gpu decodes for a model on the GPU: say --device cuda, too")
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
        RunSettings(method.device, method.precision, os.cpu_count() or 1, lanes, method.decode),
        method.seed,
        method.patch_size if patches else 0,
        method.patch_dimension if patches else 0,
        method.dimension,
        whiten=whiten,
    )


def evaluate(settings: EvaluationSettings) -> None:
    """Measure, print the table, and write what `output` asks for."""
    chosen, method = read_set(settings.photographs), settings.method
    sequence = method_of(settings.sequence) if settings.sequence else None
    if sequence is not None:
        if settings.rerank != "none" or settings.index:
            raise UserError("--sequence orders all photographs: leave out --rerank and --index")
        check_drives(chosen)
    smoothing = smoothing_for(chosen, method.smooth, in_drives=sequence is not None)
    cores = os.cpu_count() or 1
    choice = model_choice(
        method,
        settings.model,
        settings.checkpoint,
        settings.rerank,
        learn=settings.learn,
        lanes=cores,
        whiten=settings.whiten > 0,
    )
    model, learnt_from = prepare_model(choice, chosen.database.paths)
    by = reranking.computed_evidence(
        settings.rerank, method.features, model, method.patch_size, cores, method.device
    )
    database = describe(model, chosen.database.paths, choice.run, "database")
    queries = database
    if not chosen.leave_one_out:
        queries = describe(model, chosen.queries.paths, choice.run, "queries")
    rows = [database.rows, queries.rows]
    whitening = None
    if settings.whiten:
        whitening = _whitening(settings, model, choice, database)
        rows = [whitened(each, whitening) for each in rows]
    nowhere = inliers = None
    if sequence is not None:
        searched = smoothing.of(rows[0], chosen.database)
        in_drives = ranked_in_drives(rows[1], searched, chosen, sequence)
        ranking, nowhere = in_drives.ranking, in_drives.nowhere
    else:
        ranking, _, inliers = reranking.ranked(
            rows[1],
            rows[0],
            chosen,
            smoothing,
            by,
            method.rerank_candidates,
            settings.index,
            method.device,
        )
    measured = Measured(chosen, ranking, database, queries, smoothing, nowhere, inliers)
    results = results_of(settings, measured, model, learnt_from, whitening)
    if settings.json:
        print_json(results)
    else:
        print(table(measured, results))
    if settings.output is not None:
        write(settings.output, settings.photographs.source, measured, results)
        if not settings.json:
            page = settings.output / "index.html"
            print(f"\nresults in {settings.output}; open {page} in a browser")


def _whitening(
    settings: EvaluationSettings, model: DescriptorModel, choice: ModelChoice, database: Descriptors
) -> Whitening:
    rows = database.rows
    if settings.whiten_split:
        other = read_set(settings.photographs.of_split(settings.whiten_split))
        rows = describe(model, other.database.paths, choice.run, settings.whiten_split).rows
    return fit_whitening(rows[rows.any(axis=1)], settings.whiten, seed=settings.method.seed)
