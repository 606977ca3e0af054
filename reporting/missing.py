"""Photographs that are not in the map: counted by reason, with some examples of each."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vladmap.schemas.rejects import UnregisteredReason

MAX_LISTED = 200
"""Photographs on the page, fairly of each reason; unregistered.parquet has them all."""
MAX_PICTURES = 40
"""Of those, how many have a picture."""

_MEANS = {
    UnregisteredReason.DUPLICATE: "another photograph has the same bytes",
    UnregisteredReason.REJECTED: "it could not be used, see Rejects",
    UnregisteredReason.PANORAMA: "it is no picture of one lens: searched, not mapped",
    UnregisteredReason.NO_PAIR: "nothing is alike enough to be compared with it",
    UnregisteredReason.NO_VERIFIED_PAIR: "what it was compared with shows another scene",
    UnregisteredReason.PAIRS_NOT_TRUSTED: "its verified pairs join places that only look alike",
    UnregisteredReason.TILE_FAILED: "its tile has no model",
    UnregisteredReason.LEFT_OUT_BY_MAPPER: "COLMAP found no place for it",
    UnregisteredReason.TOO_FEW_POINTS: "too few points with parallax hold it in its place",
    UnregisteredReason.CONTRADICTED: "GPS, its drive, pairs or another tile contradict its place",
    UnregisteredReason.MODEL_TOO_SMALL: "it was placed with too few others",
    UnregisteredReason.MODEL_LEFT_OUT: "its model is contradicted, or did not come into the map",
}


@dataclasses.dataclass(frozen=True)
class MissingFigures:
    """Photographs out of the map for one reason."""

    reason: str
    means: str
    count: int
    stages: tuple[str, ...]


def missing_figures(unregistered: pa.Table) -> list[MissingFigures]:
    """Figures of each reason in schemas.tables.UNREGISTERED, the most frequent first."""
    figures = []
    for reason in pc.unique(unregistered["reason"]).to_pylist():
        group = unregistered.filter(pc.equal(unregistered["reason"], reason))
        stages = tuple(sorted(pc.unique(group["stage"]).to_pylist()))
        figures.append(MissingFigures(reason, _MEANS.get(reason, ""), group.num_rows, stages))
    return sorted(figures, key=lambda figure: (-figure.count, figure.reason))


def shown(unregistered: pa.Table, limit: int) -> pa.Table:
    """At most `limit` rows, about equally many of each reason; sorted by reason and name."""
    ordered = unregistered.sort_by([("reason", "ascending"), ("name", "ascending")])
    reason = np.asarray(ordered["reason"].to_pylist(), object)
    _, start, count = np.unique(reason, return_index=True, return_counts=True)
    place = np.arange(len(reason)) - np.repeat(start, count)
    chosen = np.sort(np.argsort(place, kind="stable")[:limit])
    return ordered.take(pa.array(chosen))


def listed(unregistered: pa.Table, pictures: dict[str, bytes]) -> list[dict[str, Any]]:
    """Rows for the page, each with the JPEG of its photograph where there is one."""
    rows = shown(unregistered, MAX_LISTED).to_pylist()
    return [{**row, "picture": pictures.get(row["image_id"])} for row in rows]
