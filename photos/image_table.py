"""Complete rows of photographs -> a shard of `images/`, with counts for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from vladmap.photos.geoparquet import boxes, points_wkb, with_geo_metadata
from vladmap.photos.headers.clocks import ASSUMED_UTC, NEIGHBOURS
from vladmap.photos.headers.projection import PERSPECTIVE
from vladmap.schemas import tables
from vladmap.schemas.records import NO_CELL

Row = Mapping[str, Any]


JOINED_KEY = b"vladmap:cell_resolution"
"""Metadata of a shard of several cells: the resolution of the cells of its photographs."""


def image_table(rows: Sequence[Row], joined: int | None = None) -> pa.Table:
    """Rows of photos.organise.complete_row as a GeoParquet table of schemas.tables.IMAGES.

    `joined` is the resolution of their cells, where they lie in several.
    """
    latitude, longitude, altitude = (
        np.array([row[name] for row in rows], dtype=float)
        for name in ("latitude", "longitude", "altitude")
    )
    computed = {
        "name": pa.array([row["path"] for row in rows], pa.string()),
        "geometry": points_wkb(latitude, longitude, altitude),
        "bbox": boxes(latitude, longitude),
    }
    columns = [
        computed[field.name]
        if field.name in computed
        else pa.array([row[field.name] for row in rows], field.type)
        for field in tables.IMAGES
    ]
    table = with_geo_metadata(pa.table(columns, schema=tables.IMAGES))
    if joined is None:
        return table
    said = {**(table.schema.metadata or {}), JOINED_KEY: str(joined).encode()}
    return table.replace_schema_metadata(said)


def image_counts(rows: Sequence[Row]) -> dict[str, int]:
    """Counts of photographs that the report mentions: duplicates, without a position, and so on."""
    return {
        "images": len(rows),
        "duplicates": sum(row["duplicate_of"] is not None for row in rows),
        "without_position": sum(row["cell"] == NO_CELL for row in rows),
        "invalid_positions": sum("position_invalid" in row["notes"] for row in rows),
        "invalid_facts": sum(map(_has_invalid_facts, rows)),
        "panoramas": sum(row["projection"] != PERSPECTIVE for row in rows),
        "zones_unknown": sum(row["time_source"] == ASSUMED_UTC for row in rows),
        "zones_of_neighbours": sum(row["time_source"] == NEIGHBOURS for row in rows),
    }


def _has_invalid_facts(row: Row) -> bool:
    notes = set(row["notes"].split()) - {"position_invalid"}
    return any(note.endswith("_invalid") for note in notes)
