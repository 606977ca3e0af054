"""The measurement that `vladmap compare` makes."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vladmap.console.results import print_json
from vladmap.evaluation import reranking
from vladmap.evaluation.describing import describe
from vladmap.evaluation.intervals import groups_of, share_interval
from vladmap.evaluation.learning import prepare_model
from vladmap.evaluation.measure import model_choice
from vladmap.evaluation.names import METHODS, RERANKING
from vladmap.evaluation.sequences import check_drives, method_of, ranked_in_drives
from vladmap.evaluation.sets import Smoothing, read_set, smoothing_for
from vladmap.evaluation.settings import ComparisonSettings, MethodSettings
from vladmap.models.kinds import MODEL_NAMES
from vladmap.photos.layouts import EvaluationSet
from vladmap.reporting.evaluation_plots import plot_comparison
from vladmap.reporting.evaluation_table import MethodRow, markdown, write_csv
from vladmap.retrieval.recall import Ranking, figures
from vladmap.retrieval.sequences.matching import SequenceMethod
from vladmap.schemas.rejects import UserError

_LABELS = {
    "bovw+sift": "SIFT matching of BoVW's best",
    "bovw": "BoVW",
    "vlad": "RootSIFT-VLAD",
    "netvlad": "NetVLAD",
    "netvlad-imagenet": "NetVLAD, Lite0 untrained",
    "netvlad-lite": "NetVLAD, Lite0",
    "netvlad-lite+rapid": "Patch-NetVLAD, Lite0",
    "patch-netvlad+rapid": "Patch-NetVLAD",
    "supervlad": "SuperVLAD",
    "ghost-dil-netvlad": "Ghost-dil-NetVLAD",
}


@dataclass(frozen=True)
class Method:
    """A method of `vladmap compare`: the parts of `name[+rerank][=checkpoint]`."""

    model: str
    rerank: str
    checkpoint: Path | None

    @property
    def label(self) -> str:
        key = self.model if self.rerank == "none" else f"{self.model}+{self.rerank}"
        return _LABELS.get(key, key)


def compare(settings: ComparisonSettings) -> None:
    """Measure, print the table, and write what `output` asks for."""
    given = [_method(text) for text in settings.methods]
    methods = given
    if not given or settings.all:
        own = {(method.model, method.rerank): method for method in given}
        table = [_method(text) for text in METHODS]
        named = [own.pop((each.model, each.rerank), each) for each in table]
        methods = [*named, *own.values()]
    chosen = read_set(settings.photographs)
    smoothing = smoothing_for(chosen, settings.method.smooth)
    sequences = [method_of(text) for text in settings.sequences]
    if sequences:
        check_drives(chosen)
    rows = []
    for method in methods:
        print(method.label, file=sys.stderr, flush=True)
        try:
            rows += _measured(
                settings.method, chosen, method, smoothing, sequences, settings.indexes
            )
        except UserError as error:
            rows.append(MethodRow(method.label, method.model, left_out=str(error)))
    text = (
        f"{len(chosen.queries)} queries in {len(chosen.database)} photographs, right "
        f"{chosen.protocol}; {smoothing}; recall over all queries\n\n"
        f"{markdown(rows)}"
    )
    if settings.json:
        print_json({"methods": [_known(row) for row in rows]})
    else:
        print(text, end="")
    if settings.output is not None:
        _write(settings.output, text, rows)
        if not settings.json:
            print(f"\ntable and plot in {settings.output}")


def _method(text: str) -> Method:
    name, _, file = text.partition("=")
    model, _, rerank = name.partition("+")
    if model not in MODEL_NAMES:
        raise UserError(f"--method {text}: {model!r} is none of {', '.join(MODEL_NAMES)}")
    if not rerank:
        rerank = "rapid" if model == "patch-netvlad" else "none"
    if rerank not in RERANKING:
        raise UserError(f"--method {text}: {rerank!r} is none of {', '.join(RERANKING)}")
    return Method(model, rerank, Path(file) if file else None)


def _measured(
    settings: MethodSettings,
    chosen: EvaluationSet,
    method: Method,
    smoothing: Smoothing,
    sequences: Sequence[SequenceMethod],
    indexes: Sequence[str],
) -> list[MethodRow]:
    """The rows of a method: by exact search, by each index, and of drives matched in each way."""
    choice = model_choice(settings, method.model, method.checkpoint, method.rerank)
    model, _ = prepare_model(choice, chosen.database.paths)
    by = reranking.computed_evidence(
        method.rerank,
        settings.features,
        model,
        settings.patch_size,
        device=settings.device,
    )
    database = describe(model, chosen.database.paths, choice.run, "database")
    queries = database
    if not chosen.leave_one_out:
        queries = describe(model, chosen.queries.paths, choice.run, "queries")
    ranking, query_milliseconds, _ = reranking.ranked(
        queries.rows, database.rows, chosen, smoothing, by, settings.rerank_candidates
    )
    size = float(database.rows[0].nbytes)
    image_milliseconds = database.milliseconds
    if by is not None:
        image_milliseconds += by.milliseconds_an_image
        size += by.bytes_an_image

    def row(label: str, ranking: Ranking, milliseconds: float) -> MethodRow:
        recalls = figures(ranking)
        interval = share_interval(ranking.first() == 0, groups_of(chosen.queries))
        return MethodRow(
            label,
            method.model,
            recalls.recall(1),
            recalls.recall(5),
            size,
            image_milliseconds,
            milliseconds,
            interval=(interval.low, interval.high),
            by_condition=_by_condition(chosen, ranking),
        )

    rows = [row(method.label, ranking, query_milliseconds)]
    for index in indexes if method.rerank == "none" else ():
        by_index, milliseconds, _ = reranking.ranked(
            queries.rows, database.rows, chosen, smoothing, None, 1, index
        )
        rows.append(row(f"{method.label}, {index}", by_index, milliseconds))
    searched = smoothing_for(chosen, settings.smooth, in_drives=True).of(
        database.rows, chosen.database
    )
    for sequence in sequences if method.rerank == "none" else ():
        found = ranked_in_drives(queries.rows, searched, chosen, sequence)
        rows.append(row(f"{method.label}, {sequence}", found.ranking, found.milliseconds))
    return rows


def _known(row: MethodRow) -> dict[str, Any]:
    """The row for scripts; unknown figures are None."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in dataclasses.asdict(row).items()
    }


def _by_condition(chosen: EvaluationSet, ranking: Ranking) -> dict[str, float]:
    """Recall@1 of the queries of each condition; empty if the set names no conditions."""
    names = np.array([name or "unknown" for name in chosen.queries.conditions])
    if not any(chosen.queries.conditions):
        return {}
    return {name: figures(ranking, names == name).recall(1) for name in np.unique(names).tolist()}


def _write(folder: Path, text: str, rows: list[MethodRow]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "comparison.md").write_text(text, encoding="utf-8")
        write_csv(folder / "comparison.csv", rows)
        points = [(row.method, row.bytes_an_image, row.recall_1) for row in rows]
        plot_comparison(folder, [point for point in points if not math.isnan(point[2])])
    except OSError as error:
        raise UserError(f"--output {folder} cannot be written: {error.strerror}") from error
