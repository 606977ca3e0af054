"""The facts in the JSON that Mapillary's apps and tools write into ImageDescription."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from vladmap.photos.headers.clocks import MAPILLARY
from vladmap.photos.headers.facts import Facts, clean_text, plausible_time, to_utc
from vladmap.photos.positions import ALTITUDE_RANGE_M, between, finite, is_valid_position

MAX_CHARACTERS = 1_000_000


def read_mapillary(description: str | None) -> Facts:
    """The facts of an image description; no facts where it is not an object with MAP* keys."""
    text = (description or "").strip("\0 \t\r\n")
    if not text.startswith("{") or len(text) > MAX_CHARACTERS:
        return Facts()
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return Facts()
    if not any(isinstance(key, str) and key.startswith("MAP") for key in record):
        return Facts()
    latitude, longitude = finite(record.get("MAPLatitude")), finite(record.get("MAPLongitude"))
    written = "MAPLatitude" in record or "MAPLongitude" in record
    valid = (
        latitude is not None and longitude is not None and is_valid_position(latitude, longitude)
    )
    compass = record.get("MAPCompassHeading")
    compass = compass if isinstance(compass, dict) else {}
    captured_at = _capture_time(record.get("MAPCaptureTime"))
    altitude = between(record.get("MAPAltitude"), *ALTITUDE_RANGE_M)
    return Facts(
        position=(latitude, longitude) if valid else None,  # type: ignore[arg-type]
        position_invalid=written and not valid,
        altitude=altitude,
        altitude_reference=None if altitude is None else "sea_level",
        gps_accuracy_m=between(record.get("MAPGPSAccuracyMeters"), 1e-3, 1e5),
        # A phone without a compass fix writes -1.
        heading_deg=_heading(compass.get("TrueHeading")),
        magnetic_heading_deg=_heading(compass.get("MagneticHeading")),
        captured_at=captured_at,
        time_source=None if captured_at is None else MAPILLARY,
        make=clean_text(record.get("MAPDeviceMake")),
        model=clean_text(record.get("MAPDeviceModel")),
        sequence=clean_text(record.get("MAPSequenceUUID")),
    )


def _heading(value: Any) -> float | None:
    heading = between(value, 0.0, 360.0)
    return None if heading is None else heading % 360.0


def _capture_time(value: Any) -> datetime | None:
    """UTC from "2014_06_07_10_24_05_656"; the last group is the decimal fraction of a second."""
    try:
        moment = datetime.strptime(value, "%Y_%m_%d_%H_%M_%S_%f")
    except (TypeError, ValueError):
        return None
    return None if plausible_time(moment) is None else to_utc(moment, timedelta())
