"""Rows of a manifest: they override a photograph's header, and are passed on as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from vladmap.photos.headers.clocks import MANIFEST as MANIFEST_TIME
from vladmap.photos.headers.header import Header
from vladmap.photos.headers.projection import PERSPECTIVE
from vladmap.photos.positions import ALTITUDE_RANGE_M, angle, between, finite, is_valid_position


def override(header: Header, row: Mapping[str, Any]) -> Header:
    """The header with a manifest row's values in place of the photograph's own.

    Nulls leave the header as it is. So does an invalid value, which adds the note
    `<column>_invalid`, or `position_invalid` where the header has no position either. A heading may
    be negative or exceed 360 degrees.
    """
    changes: dict[str, Any] = {}
    unusable: set[str] = set()
    for column, field in (("make", "make"), ("model", "model"), ("sequence_id", "sequence")):
        if row.get(column):
            changes[field] = row[column]
    if row.get("captured_at") is not None:
        changes["captured_at"], changes["time_source"] = row["captured_at"], MANIFEST_TIME
    for column, low, high in (
        ("altitude", *ALTITUDE_RANGE_M),
        ("gps_accuracy_m", 1e-3, 1e5),
        ("focal_px", 1.0, 1e6),
    ):
        if (number := between(row.get(column), low, high)) is not None:
            changes[column] = number
        elif row.get(column) is not None:
            unusable.add(f"{column}_invalid")
    # At most ten turns: numbers beyond, such as -9999, stand for a missing value.
    if (turned := angle(row.get("heading_deg"), -3600.0, 3600.0)) is not None:
        changes["heading_deg"] = turned
    elif row.get("heading_deg") is not None:
        unusable.add("heading_deg_invalid")
    if "altitude" in changes:
        # A manifest does not say what its heights refer to.
        changes["altitude_reference"] = None
    if row.get("projection"):
        changes["projection"] = row["projection"]
        if row["projection"] != PERSPECTIVE:
            changes["focal_px"] = None
    notes = {*header.notes, *unusable}
    if "captured_at" in changes:
        notes.discard("capture_zone_unknown")
    if "heading_deg" in changes:
        notes.discard("heading_magnetic")
    latitude, longitude = row.get("latitude"), row.get("longitude")
    if latitude is not None or longitude is not None:
        y, x = finite(latitude), finite(longitude)
        if y is not None and x is not None and is_valid_position(y, x):
            changes["latitude"], changes["longitude"] = y, x
            notes.discard("position_invalid")
        elif header.latitude is None:
            notes.add("position_invalid")
    return dataclasses.replace(header, **changes, notes=tuple(sorted(notes)))


def to_json(row: Mapping[str, Any]) -> str | None:
    """The values of a manifest row that are not null, as canonical JSON; None where all are."""
    values = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in sorted(row.items())
        if value is not None
    }
    return json.dumps(values, sort_keys=True) if values else None


def from_json(text: str) -> dict[str, Any]:
    """The inverse of `to_json`."""
    row: dict[str, Any] = json.loads(text)
    if "captured_at" in row:
        row["captured_at"] = datetime.fromisoformat(row["captured_at"])
    return row
