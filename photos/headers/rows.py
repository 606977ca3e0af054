"""A photograph's bytes -> its row of schemas.ingest_tables.HEADERS."""

from __future__ import annotations

from typing import Any

from vladmap.photos.decoding.decode import inspect
from vladmap.photos.ids import content_hash
from vladmap.photos.manifests.rows import from_json, override
from vladmap.schemas.ingest_tables import HEADER_FIELDS
from vladmap.schemas.rejects import PhotoError, RejectReason

_NOT_FILES = {
    "not_a_file": (RejectReason.NOT_A_FILE, "not a regular file"),
    "missing": (RejectReason.MISSING, "listed, but there is no such file"),
    "unreadable": (RejectReason.UNREADABLE, "the folder cannot be read: check its permissions"),
    "name_not_utf8": (RejectReason.UNREADABLE, "the file's name is not UTF-8: rename it"),
}


def require_file(kind: str) -> None:
    """Raises PhotoError where an entry of a listing, by its `kind`, is not a readable file."""
    if kind in _NOT_FILES:
        raise PhotoError(*_NOT_FILES[kind])


def header_row(data: bytes, overrides: str | None, max_pixels: int) -> dict[str, Any]:
    """Columns of HEADERS that the bytes of a photograph give.

    `overrides` is the JSON of what a manifest says of it; it takes precedence over the file. Raises
    PhotoError where the photograph cannot be used.
    """
    header, sharpness = inspect(data, max_pixels=max_pixels)
    if overrides:
        header = override(header, from_json(overrides))
    return {
        **{name: getattr(header, name) for name in HEADER_FIELDS},
        "content_hash": content_hash(data),
        "sharpness": sharpness,
        "given_sequence": header.sequence,
        "notes": " ".join(header.notes),
    }
