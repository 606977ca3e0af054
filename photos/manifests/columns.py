"""The columns of a manifest, and the names by which they are recognised."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

import pyarrow as pa

MANIFEST = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("latitude", pa.float64()),
        pa.field("longitude", pa.float64()),
        pa.field("altitude", pa.float64()),
        pa.field("gps_accuracy_m", pa.float64()),
        pa.field("heading_deg", pa.float64()),
        pa.field("captured_at", pa.timestamp("us", tz="UTC")),
        pa.field("sequence_id", pa.string()),
        pa.field("make", pa.string()),
        pa.field("model", pa.string()),
        pa.field("focal_px", pa.float64()),
        pa.field("projection", pa.string()),
    ]
)
"""The schema of what `read_manifest` returns; values that the manifest lacks are null."""

ALIASES: dict[str, tuple[str, ...]] = {
    "uri": ("path", "filename", "file", "filepath", "image", "imagepath", "sourcefile", "photo"),
    "latitude": ("lat", "gpslatitude", "gpslat", "latitudedeg", "latdeg"),
    "longitude": (
        *("lon", "lng", "long", "gpslongitude", "gpslon", "gpslng", "gpslong"),
        *("longitudedeg", "londeg", "lngdeg"),
    ),
    "altitude": ("alt", "gpsaltitude", "gpsalt", "altitudem", "elevation", "ele"),
    "gps_accuracy_m": ("gpsaccuracy", "gpshpositioningerror", "horizontalaccuracy"),
    "heading_deg": ("heading", "compassangle", "gpsimgdirection", "bearing", "azimuth"),
    "captured_at": ("capturetime", "timestamp", "capturedatetime"),
    "sequence_id": ("sequence",),
    "make": ("cameramake",),
    "model": ("cameramodel",),
    "focal_px": ("focallengthpx",),
}
"""Other names under which a column is found, as `plain_name` writes them; the first found wins.

Not those of exiftool's times, which have no zone.
"""

_MEANT = {"x": "longitude", "y": "latitude", "z": "altitude"}

MANIFEST_SUFFIXES = ("csv", "parquet", "geoparquet", "geojson", "json")


def is_manifest_name(name: str) -> bool:
    """Whether a file name ends like a manifest's, in any case."""
    return name.rpartition(".")[2].lower() in MANIFEST_SUFFIXES


def plain_name(column: str) -> str:
    """A column's name without case, signs and a group before a colon (`EXIF:GPSLatitude`)."""
    return "".join(letter for letter in column.rpartition(":")[2].lower() if letter.isalnum())


def canonical_name(column: str) -> str:
    plain = plain_name(column)
    for target in MANIFEST.names:
        if plain == plain_name(target) or plain in ALIASES.get(target, ()):
            return target
    return plain


def unused_columns(columns: Sequence[str], used: Collection[str]) -> list[str]:
    """Sentences on the columns that are not read, and on a manifest without positions."""
    unused = [column for column in columns if column.strip() and column not in used]
    notes = []
    if unused:
        listed = ", ".join(unused[:20]) + (
            f" and {len(unused) - 20} more" if len(unused) > 20 else ""
        )
        notes.append(f"columns of the manifest that are not read: {listed}")
    targets = {plain_name(target): target for target in MANIFEST.names}
    targets |= {alias: target for target, aliases in ALIASES.items() for alias in aliases}
    used_targets = {canonical_name(column) for column in used}
    for column in unused:
        plain = plain_name(column)
        close = difflib.get_close_matches(plain, targets, n=1, cutoff=0.75)
        meant = _MEANT.get(plain) or (targets[close[0]] if close else None)
        if meant and meant not in used_targets:
            notes.append(
                f"{column} may be meant for {meant}: call it that, in WGS84 degrees"
                if meant in ("latitude", "longitude")
                else f"{column} may be meant for {meant}: call it that"
            )
    return notes
