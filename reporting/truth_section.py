"""The comparison of an atlas with the truth: its section of the page, its lines on the terminal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from vladmap.reporting import number_formats as formats
from vladmap.reporting.data import TruthFigures

_MAP = ("images", "registered", "share", "models", "registered_in_largest", "share_in_largest")
_ERRORS = (
    ("by_gps_m", "Position, as placed by GPS", formats.metres),
    ("aligned_m", "Position, aligned to the truth", formats.metres),
    ("rotation_deg", "Rotation, aligned to the truth", formats.degrees),
)
_COUNTS = ("over_1_m", "over_5_m", "images")
_TITLE = 24  # characters of a line's title, as mapping.check.format_check has them


@dataclasses.dataclass(frozen=True)
class RecallAt:
    """Queries that find a right match among their `rank` best; shares are NaN of no queries."""

    rank: int
    hits: int
    of_all: float
    of_those: float

    @property
    def width(self) -> str:
        """Of the bar, in per cent."""
        return f"{100 * self.of_those if math.isfinite(self.of_those) else 0:.2f}"


@dataclasses.dataclass(frozen=True)
class TruthSection:
    """The content of the section. Without descriptors there are no recalls; see TruthFigures."""

    current: bool
    map: dict[str, Any]
    errors: Sequence[tuple[str, Sequence[str]]]
    model: str = ""
    dimension: int = 0
    queries: int = 0
    with_positive: int = 0
    recalls: Sequence[RecallAt] = ()
    notes: Sequence[str] = ()


def truth_section(figures: TruthFigures | None) -> TruthSection | None:
    """The section of a comparison; None without one."""
    if figures is None:
        return None
    of_map, retrieval = figures["map"], figures["retrieval"]
    if not figures["current"]:
        return TruthSection(False, {}, ())
    section = TruthSection(True, {name: of_map.get(name) for name in _MAP}, _errors(of_map))
    if retrieval is None:
        return section
    return dataclasses.replace(
        section,
        model=retrieval["model"],
        dimension=retrieval["dimension"],
        queries=retrieval["queries"],
        with_positive=retrieval["queries_with_positive"],
        recalls=recalls(retrieval),
        notes=notes(retrieval),
    )


def recalls(retrieval: dict[str, Any]) -> list[RecallAt]:
    """The recalls of `retrieval`, by rank."""
    shares = [retrieval[f"recall_over_{of}"] for of in ("all_queries", "queries_with_positive")]
    return [
        RecallAt(rank, retrieval["found"][str(rank)], *(_share(each[str(rank)]) for each in shares))
        for rank in sorted(int(key) for key in retrieval["found"])
    ]


def notes(retrieval: dict[str, Any]) -> list[str]:
    """Sentences on how the recalls of `retrieval` were measured."""
    queries, unturned = retrieval["queries"], retrieval["queries_without_heading"]
    turned = f" and {retrieval['right_deg']:g} degrees of its heading" if unturned < queries else ""
    sentences = [
        f"A match is right within {retrieval['right_m']:g} m of the query{turned}.",
        f"Images of its sequence within {retrieval['beside']:g} s of the query (where times are "
        f"missing, within {retrieval['beside']:g} places) are left out.",
    ]
    if unturned:
        whom = f"{unturned:,} images have" if turned else "The truth has"
        sentences.append(f"{whom} no heading: there the position alone counts.")
    without = queries - retrieval["queries_with_positive"]
    if without:
        sentences.append(f"{without:,} queries have no right match, and count among all as misses.")
    if retrieval["queries_unreadable"]:
        sentences.append(
            f"{retrieval['queries_unreadable']:,} images have no descriptor: they are not found, "
            "and as queries they are misses."
        )
    return sentences


def recall_lines(retrieval: dict[str, Any] | None, model: str) -> str:
    """The recalls in words, a line a figure; `model` is the one that was asked for."""
    if retrieval is None:
        return f"{'retrieval':<{_TITLE}}not known: the atlas has no descriptors of {model}"
    rows = recalls(retrieval)
    lines = [
        f"{'retrieval':<{_TITLE}}{retrieval['model']}, {retrieval['dimension']} dimensions",
        *notes(retrieval),
        f"{'recall, %':<{_TITLE}}{'queries':>8}" + "".join(f"{f'@{row.rank}':>8}" for row in rows),
    ]
    for title, queries, shares in (
        ("all", retrieval["queries"], [row.of_all for row in rows]),
        (
            "  with a right match",
            retrieval["queries_with_positive"],
            [row.of_those for row in rows],
        ),
    ):
        lines.append(f"{title:<{_TITLE}}{queries:>8}" + "".join(map(_percent, shares)))
    return "\n".join(lines)


def _errors(errors: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Rows of the table of the map's errors: a name, and its figures.

    These are median, 95 % and maximum; how many images are over 1 m and over 5 m off (empty for
    rotations), and how many were compared.
    """
    return [
        (
            name,
            [write(errors[key][figure]) for figure in ("median", "p95", "max")]
            + [f"{errors[key][count]:,}" if count in errors[key] else "" for count in _COUNTS],
        )
        for key, name, write in _ERRORS
        if key in errors
    ]


def _share(value: float | None) -> float:
    return math.nan if value is None else value


def _percent(share: float) -> str:
    return f"{f'{100 * share:.1f}' if math.isfinite(share) else '-':>8}"
