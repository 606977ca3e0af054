"""The set of photographs that an evaluation measures on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vladmap.atlas import storage
from vladmap.atlas.store import AtlasStore
from vladmap.evaluation.names import FRAMES_SIGMA
from vladmap.evaluation.settings import SetSettings
from vladmap.photos.layouts import (
    EvaluationSet,
    detect,
    read_csv,
    read_frames,
    read_msls,
    read_utm,
    split_by_time,
)
from vladmap.photos.places import Places
from vladmap.retrieval.names import SIGMA_M
from vladmap.retrieval.smoothing import smooth
from vladmap.schemas.rejects import UserError

_ATLAS_COLUMNS = [
    "image_id",
    "uri",
    "captured_at",
    "latitude",
    "longitude",
    "heading_deg",
    "duplicate_of",
    "sequence_id",
    "sequence_index",
]


def read_set(settings: SetSettings) -> EvaluationSet:
    """The set that the settings name. Raises UserError if there is none."""
    source, metres = settings.source, settings.positives_m
    layout = detect(source) if settings.layout == "auto" else settings.layout
    if layout == "utm":
        return read_utm(source, settings.split, metres)
    if layout == "msls":
        return read_msls(source, settings.split, metres)
    if layout == "csv":
        return read_csv(source, metres)
    if layout == "frames":
        return read_frames(source, settings.frames_tolerance)
    return split_by_time(_images(source), metres, _instant(settings.since), settings.last_share)


@dataclass(frozen=True)
class Smoothing:
    """The smoothing of a database's descriptors: `sigma` in metres or frames, 0 for none."""

    sigma: float
    unit: str

    def __str__(self) -> str:
        over = f"over {self.sigma:g} {self.unit}"
        return f"database smoothed {over}" if self.sigma else "database not smoothed"

    def of(self, rows: NDArray[np.float32], database: Places) -> NDArray[np.float32]:
        """The descriptors `rows` (N, D) of the database's photographs, smoothed."""
        if not self.sigma:
            return rows
        if self.unit == "m":
            return smooth(rows, database.positions, database.headings, self.sigma)
        # The position of a frame is its number in the sequence.
        frames = np.arange(len(rows), dtype=np.float64)[:, None]
        return smooth(rows, frames, np.zeros(len(rows)), self.sigma)


def smoothing_for(chosen: EvaluationSet, given: float | None, in_drives: bool = False) -> Smoothing:
    """The smoothing of the set's database: the `given` sigma, or by default one for the set.

    If the queries are the database there is none, because each query would be part of its
    neighbours' descriptors. Nor is there by default where queries are matched `in_drives`, which
    weighs the neighbours itself. Raises UserError for a sigma that the set does not allow.
    """
    unit = "frames" if chosen.metres is None else "m"
    if given and chosen.leave_one_out:
        raise UserError(
            "--smooth wants queries apart from the database: here they are the same photographs"
        )
    if given is not None or chosen.leave_one_out or in_drives:
        return Smoothing(given or 0.0, unit)
    if chosen.metres is not None:
        return Smoothing(min(SIGMA_M, chosen.metres / 4), unit)
    return Smoothing(FRAMES_SIGMA * (chosen.frames or 0), unit)


def _images(source: Path) -> pa.Table:
    atlas = AtlasStore.open(str(source), create=False)
    parts = [
        storage.read_table(atlas.path(entry.file.path), _ATLAS_COLUMNS)
        for entry in atlas.image_shards().values()
    ]
    if not parts:
        raise UserError(f"{source} has no images yet: run `vladmap ingest` first")
    return pa.concat_tables(parts)


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserError(f"--since {text}: not a time, as in 2024-05-01T12:00:00") from error
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
