"""The table of a comparison of methods, in Markdown and CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vladmap.reporting.number_formats import cell

_HEADER = ("method", "recall@1 %", "95 %", "recall@5 %", "bytes/image", "ms/image", "ms/query")


@dataclass(frozen=True)
class MethodRow:
    """One method; recalls are 0 to 1 over all queries. `left_out` says why there are no figures.

    `interval` holds the middle 95 % of recall@1 when drives are resampled. `by_condition` is the
    recall@1 over the queries of each condition, where they have any.
    """

    method: str
    model: str
    recall_1: float = math.nan
    recall_5: float = math.nan
    bytes_an_image: float = math.nan
    milliseconds_an_image: float = math.nan
    milliseconds_a_query: float = math.nan
    left_out: str = ""
    interval: tuple[float, float] = (math.nan, math.nan)
    by_condition: Mapping[str, float] = field(default_factory=dict)


def markdown(rows: Sequence[MethodRow]) -> str:
    """A table of what was measured, one of recall@1 by condition, and what was left out."""
    measured = [row for row in rows if not row.left_out]
    lines = _table([_HEADER, *(_cells(row) for row in measured)])
    conditions = _conditions(measured)
    if conditions:
        header = ("recall@1 %", *conditions)
        shown = [[_percent(row.by_condition.get(name)) for name in conditions] for row in measured]
        body = [(row.method, *cells) for row, cells in zip(measured, shown, strict=True)]
        lines += ["", *_table([header, *body])]
    without = [f"- left out: {row.method} ({row.left_out})" for row in rows if row.left_out]
    return "\n".join([*lines, *([""] if without else []), *without]) + "\n"


def _table(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["| " + " | ".join(_padded(line, widths)) + " |" for line in cells]
    rule = [f"{'-' * widths[0]}", *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    return lines


def _conditions(rows: Sequence[MethodRow]) -> list[str]:
    return sorted({name for row in rows for name in row.by_condition})


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def write_csv(path: Path, rows: Sequence[MethodRow]) -> None:
    """A row a method, with full figures."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        conditions = _conditions(rows)
        writer.writerow(
            [
                "method",
                "model",
                "recall_1",
                "recall_1_low",
                "recall_1_high",
                "recall_5",
                "bytes_an_image",
                "milliseconds_an_image",
                "milliseconds_a_query",
                *(f"recall_1_{name}" for name in conditions),
                "left_out",
            ]
        )
        for row in rows:
            figures = (
                row.recall_1,
                *row.interval,
                row.recall_5,
                row.bytes_an_image,
                row.milliseconds_an_image,
                row.milliseconds_a_query,
                *(row.by_condition.get(name, math.nan) for name in conditions),
            )
            shown = ["" if math.isnan(figure) else f"{figure:.6g}" for figure in figures]
            writer.writerow([cell(row.method), row.model, *shown, cell(row.left_out)])


def _cells(row: MethodRow) -> tuple[str, ...]:
    return (
        row.method,
        f"{100 * row.recall_1:.1f}",
        "-".join(f"{100 * end:.1f}" for end in row.interval),
        f"{100 * row.recall_5:.1f}",
        f"{row.bytes_an_image:,.0f}",
        f"{row.milliseconds_an_image:.1f}",
        f"{row.milliseconds_a_query:.2f}",
    )


def _padded(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *others = line
    return [
        first.ljust(widths[0]),
        *(text.rjust(width) for text, width in zip(others, widths[1:], strict=True)),
    ]
