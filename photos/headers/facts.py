"""The metadata of a photograph from one source (EXIF, XMP, Mapillary's JSON)."""

from __future__ import annotations

import dataclasses
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Any

MAX_TEXT = 256
"""Characters kept of a text field; makes and models are shorter, hostile tags are not."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """The values of one source, None where it has no valid one; in degrees, metres, UTC.

    `position` is (latitude, longitude), validated; `position_invalid` says that the source has an
    invalid one. `captured_at` is an instant, `time_source` its origin (a constant of
    photos.headers.clocks), `captured_local` what the camera's clock showed. `projection` is one of
    photos.headers.projection.
    """

    position: tuple[float, float] | None = None
    position_invalid: bool = False
    altitude: float | None = None
    altitude_reference: str | None = None
    gps_accuracy_m: float | None = None
    gps_dop: float | None = None
    heading_deg: float | None = None
    magnetic_heading_deg: float | None = None
    captured_at: datetime | None = None
    captured_local: datetime | None = None
    time_source: str | None = None
    make: str | None = None
    model: str | None = None
    focal_mm: float | None = None
    focal_35mm: float | None = None
    sequence: str | None = None
    projection: str | None = None
    notes: tuple[str, ...] = ()


def clean_text(value: Any) -> str | None:
    """A text field without padding, control characters and lone surrogates; None where empty."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    value = value.split("\0", 1)[0][: 4 * MAX_TEXT]
    spaced = (" " if letter.isspace() else letter for letter in value)
    text = "".join(letter for letter in spaced if unicodedata.category(letter) not in ("Cc", "Cs"))
    return " ".join(text.split())[:MAX_TEXT] or None


def plausible_time(moment: datetime) -> datetime | None:
    """The moment itself where a camera can have written it, else None (years 1900 to 2200)."""
    return moment if 1900 <= moment.year <= 2200 else None


def to_utc(local: datetime, offset: timedelta) -> datetime:
    """The instant at which a clock `offset` ahead of UTC shows the wall-clock time `local`."""
    return (local - offset).replace(tzinfo=UTC)
