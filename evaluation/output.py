"""What an evaluation writes: results.json, queries.csv, curves, plots, pages, and the table."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from vladmap.evaluation.metrics import Measured
from vladmap.reporting.evaluation import Evaluation, Failure, RecallRow, write_evaluation
from vladmap.reporting.evaluation_plots import plot_precision_recall, plot_recall
from vladmap.reporting.number_formats import cell
from vladmap.retrieval.recall import (
    NEVER,
    RANKS,
)
from vladmap.schemas.rejects import UserError


def table(measured: Measured, results: dict[str, Any]) -> str:
    """The table for the terminal."""
    model, counts = results["model"], results["counts"]
    title = f"{model['name']}, {results['dimension']} numbers, {results['search']} search"
    if results["rerank"]:
        rerank = results["rerank"]
        title += f", {rerank['candidates']} best re-ranked by {rerank['method']}"
        if rerank["method"] == "features":
            title += f" ({rerank['features']})"
    if results["sequence"]:
        title += f", drives matched by {results['sequence']['method']}"
    lines = [
        title,
        f"{counts['queries']} queries in {counts['database']} photographs, right "
        f"{measured.chosen.protocol}; {measured.smoothing}",
        *_notes(measured),
        "",
    ]
    width = max(len("  with a positive"), *(len(name) for name in measured.rows))
    ranks = "".join(f"{'@' + str(k):>8}" for k in RANKS)
    lines.append(f"{'recall, %':<{width}}{'queries':>9}{ranks}{'mAP':>8}")
    for name, row in measured.rows.items():
        for label, count, recall, last in (
            (name, row.queries, row.recall, ""),
            (
                "  with a positive",
                row.with_positive,
                row.recall_with_positive,
                _percent(row.mean_average_precision),
            ),
        ):
            shown = "".join(f"{_percent(recall(k)):>8}" for k in RANKS)
            lines.append(f"{label:<{width}}{count:>9}{shown}{last:>8}".rstrip())
    interval = measured.interval
    lines.append(
        f"recall@1 of all: {_percent(interval.low)} to {_percent(interval.high)} % (95 %, "
        f"bootstrap over {interval.groups} {interval.of})"
    )
    lines.append("")
    for score, curve in measured.curves.items():
        within = measured.certainty.scores[score].interval
        lines.append(
            f"precision-recall by {score}: area {_percent(curve.area)} % "
            f"({_percent(within.low)} to {_percent(within.high)}), recall at full precision "
            f"{_percent(curve.recall_at_full_precision)} %"
        )
    if measured.certainty.error is not None:
        lines.append(
            f"probability of a right match: {_percent(measured.certainty.error)} % off on average, "
            f"held out by {measured.certainty.fold_of}"
        )
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}" if math.isfinite(share) else "-"


def _notes(measured: Measured) -> list[str]:
    """Notes on what was left out and on what counts as a miss."""
    chosen = measured.chosen
    notes = []
    without = int((measured.positives == 0).sum())
    if without:
        notes.append(
            f"queries without a right photograph in the database: {without}, which count among "
            "all queries as misses"
        )
    for text, part, places in (
        ("queries that cannot be read and count as misses", measured.queries, chosen.queries),
        (
            "photographs of the database that cannot be read, and so not be found",
            measured.database,
            chosen.database,
        ),
    ):
        if part.unreadable:
            row, reason = min(part.unreadable.items())
            more = ", ..." if len(part.unreadable) > 1 else ""
            notes.append(
                f"{text}: {len(part.unreadable)} ({places.paths[row].name}: {reason}{more})"
            )
    if measured.nowhere.any():
        notes.append(
            "queries that their drive has nowhere in the map, ranked all the same: "
            f"{int(measured.nowhere.sum())}"
        )
    if not measured.ranking.cosines:
        notes.append(
            "scores are of matching in drives: `distance` is minus the score, `ratio` the score of "
            "the best match elsewhere less the best"
        )
    for reason, count in sorted(chosen.skipped.items()):
        notes.append(f"photographs skipped, {reason}: {count}")
    return notes


def write(folder: Path, source: Path, measured: Measured, results: dict[str, Any]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(results, indent=1, sort_keys=True, allow_nan=False) + "\n"
        (folder / "results.json").write_text(text, encoding="utf-8")
        _write_queries(folder / "queries.csv", source, measured)
        _write_curves(folder / "precision_recall.csv", measured)
        plot_recall(
            folder, {name: {k: row.recall(k) for k in RANKS} for name, row in measured.rows.items()}
        )
        plot_precision_recall(
            folder,
            {
                f"by {name}": (curve.recall, curve.precision)
                for name, curve in measured.curves.items()
            },
        )
        write_evaluation(folder, _page(source, measured, results))
    except OSError as error:
        raise UserError(f"--output {folder} cannot be written: {error.strerror}") from error


def _write_queries(path: Path, source: Path, measured: Measured) -> None:
    """Write a row for each query; ranks are from 1, unknown values are empty."""
    chosen, ranking = measured.chosen, measured.ranking
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            [
                "query",
                "condition",
                "best_match",
                "distance_m",
                "right",
                "positives",
                "first_right_rank",
                "similarity",
                "descriptor_distance",
                "ratio",
                "probability",
                "note",
            ]
        )
        has_match = measured.first < NEVER
        probability = measured.probability
        for query, best in enumerate(measured.best):
            match = chosen.database.paths[best] if best >= 0 else None
            writer.writerow(
                [
                    cell(_relative(chosen.queries.paths[query], source)),
                    cell(chosen.queries.conditions[query]),
                    cell(_relative(match, source)) if match else "",
                    _cell(measured.apart_m[query], 2),
                    str(bool(measured.right[query])).lower(),
                    measured.positives[query],
                    measured.first[query] + 1 if has_match[query] else "",
                    _cell(ranking.similarity[query, 0], 6),
                    _cell(measured.distance[query], 6),
                    _cell(measured.ratio[query], 6),
                    "" if probability is None else _cell(probability[query], 4),
                    cell(measured.queries.unreadable.get(query, "")),
                ]
            )


def _write_curves(path: Path, measured: Measured) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["score", "threshold", "precision", "recall"])
        for name, curve in measured.curves.items():
            for row in zip(curve.threshold, curve.precision, curve.recall, strict=True):
                writer.writerow([name, *(_cell(value, 6) for value in row)])


def _relative(path: Path, source: Path) -> str:
    root = source if source.is_dir() else source.parent
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _cell(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else ""


def _page(source: Path, measured: Measured, results: dict[str, Any]) -> Evaluation:
    chosen = measured.chosen
    missed = np.flatnonzero(~measured.right & (measured.positives > 0) & (measured.best >= 0))
    missed = missed[np.argsort(measured.distance[missed], kind="stable")]
    right = measured.ranking.best_positive()
    failures = [
        Failure(
            chosen.queries.paths[query],
            chosen.database.paths[measured.best[query]],
            chosen.database.paths[right[query]],
            chosen.queries.conditions[query],
            None if np.isnan(measured.apart_m[query]) else float(measured.apart_m[query]),
            0 if measured.first[query] == NEVER else int(measured.first[query]) + 1,
        )
        for query in missed
    ]
    model = results["model"]
    facts = [
        ("Set", f"{source} ({chosen.layout})"),
        ("A match is right", chosen.protocol),
        ("Model", f"{model['name']}, fingerprint {model['fingerprint']}"),
        ("Numbers of a descriptor", f"{results['dimension']:,}"),
        ("Words learnt from", f"{model['learnt_from_images']} photographs of the database"),
        ("Search", f"{results['search']}, {measured.smoothing}"),
        ("Re-ranking", json.dumps(results["rerank"]) if results["rerank"] else "none"),
        ("Device", f"{model['device']}, {model['precision']}"),
    ]
    rows = [
        RecallRow(
            name,
            row.queries,
            row.with_positive,
            {k: row.recall(k) for k in RANKS},
            {k: row.recall_with_positive(k) for k in RANKS},
            row.mean_average_precision,
        )
        for name, row in measured.rows.items()
    ]
    return Evaluation(source.resolve().name, facts, _notes(measured), rows, failures)
