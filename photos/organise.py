"""Columns of a photograph's row that depend on other photographs of the collection.

These are exact duplicates, time zones and sequences. Each function works on one group of rows that
the caller has formed: rows of the same content, of the same clock, or of the same drive. Results do
not depend on the order of their input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from vladmap.photos.cells import assign_cells
from vladmap.photos.headers.clocks import zones_of_neighbours
from vladmap.photos.sequences import assign_sequences, sequence_group


class Copy(NamedTuple):
    """One of several photographs with the same bytes; copies sort by age, then by path."""

    generation: str
    path: str
    image_id: str


def duplicates(copies: Iterable[Copy]) -> Iterator[tuple[str, str]]:
    """(image_id of a duplicate, image_id of the original) for photographs with the same bytes.

    The original is the one of the oldest generation; of those, the first by path.
    """
    original, *others = sorted(copies)
    for other in others:
        yield other.image_id, original.image_id


class Frame(NamedTuple):
    """The columns of HEADERS that determine the zone of a photograph's clock and its sequence."""

    image_id: str
    path: str
    captured_at: datetime | None
    captured_local: datetime | None
    time_source: str | None
    latitude: float | None
    longitude: float | None
    make: str | None
    model: str | None
    given_sequence: str | None

    @staticmethod
    def of(row: Mapping[str, Any]) -> Frame:
        return Frame(*(row[name] for name in Frame._fields))

    @property
    def clock(self) -> str:
        """Key of the frames that share a clock and its zone: those of one camera in one folder."""
        return sequence_group(self.path, self.make, self.model, None)

    @property
    def drive(self) -> str:
        """Key of the frames among which sequences are formed; a sequence has one key."""
        return sequence_group(self.path, self.make, self.model, self.given_sequence)


def _columns(frames: Iterable[Frame]) -> Frame:
    """Frames sorted by image_id, as one Frame of lists."""
    ordered = sorted(frames, key=lambda frame: frame.image_id)
    return Frame(*map(list, zip(*ordered, strict=True)))  # type: ignore[arg-type]


def with_zones(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The frames of one clock; frames of unknown zone get the zone of the others."""
    columns: Any = _columns(frames)
    captured_at, time_source = zones_of_neighbours(
        columns.captured_at, columns.captured_local, columns.time_source
    )
    zoned = columns._replace(captured_at=captured_at, time_source=time_source)
    return map(Frame._make, zip(*zoned, strict=True))


def sequence_columns(
    frames: Iterable[Frame], max_gap_s: float, max_gap_m: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(image_id, its columns `sequence_id`, `sequence_index`, `captured_at`, `time_source`).

    `frames` are those of one drive, with their zones; photos.sequences says what the gaps mean.
    """
    columns: Any = _columns(frames)
    ids, index = assign_sequences(
        columns.image_id,
        columns.path,
        columns.captured_at,
        np.array(columns.latitude, dtype=float),
        np.array(columns.longitude, dtype=float),
        columns.make,
        columns.model,
        columns.given_sequence,
        max_gap_s=max_gap_s,
        max_gap_m=max_gap_m,
    )
    for image, *values in zip(
        columns.image_id, ids, index.tolist(), columns.captured_at, columns.time_source, strict=True
    ):
        names = ("sequence_id", "sequence_index", "captured_at", "time_source")
        yield image, dict(zip(names, values, strict=True))


def complete_row(
    header: Mapping[str, Any],
    sequence: Mapping[str, Any],
    duplicate_of: str | None,
    cell_resolution: int,
) -> dict[str, Any]:
    """The complete row of one photograph: its header, `sequence_columns`, duplicate and cell."""
    cell = assign_cells([header["latitude"]], [header["longitude"]], cell_resolution)[0]
    return {**header, **sequence, "cell": cell, "duplicate_of": duplicate_of}
