"""What is in a collection: a listing of its files, from a folder, a glob or a manifest."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from apache_beam.io.filesystems import FileSystems

from photos.ids import is_image_name
from photos.manifest import is_manifest_name, read_manifest, to_json
from schemas.rejects import UserError
from transforms import storage
from transforms.ingest import LISTING

_GLOB = frozenset("*?[")


@dataclass(frozen=True)
class Listing:
    """A collection's root and its files (columns of transforms.ingest.LISTING), sorted by path.

    `ignored` counts files whose name does not end like an image's.
    """

    root: str
    table: pa.Table
    ignored: int

    @property
    def bytes(self) -> int:
        return sum(size or 0 for size in self.table["size"].to_pylist())


def list_collection(source: str) -> Listing:
    """List a folder (with all below it), a glob, or a manifest table, local or remote.

    Raises UserError where there is nothing to read or the manifest lacks a column.
    """
    if is_manifest_name(source) and not _has_glob(source) and not os.path.isdir(source):
        listing = _list_manifest(source)
    elif storage.is_local(source) and not _has_glob(source):
        listing = _list_folder(source)
    else:
        listing = _list_matches(source)
    if listing.table.num_rows == 0:
        raise UserError(
            f"{source}: no photographs there (looked for .jpg .jpeg .png .tif .tiff .webp .bmp; "
            f"{listing.ignored} other files)"
        )
    return listing


def _has_glob(source: str) -> bool:
    return bool(_GLOB & set(source)) and not os.path.exists(source)


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    rows.sort(key=lambda row: row["path"])
    return pa.Table.from_pylist(rows, schema=LISTING)


def _list_folder(source: str) -> Listing:
    root = os.path.abspath(source)
    if not os.path.isdir(root):
        kind = "is not a folder" if os.path.exists(root) else "does not exist"
        raise UserError(
            f"{source} {kind}: --images takes a folder, a glob, or a manifest "
            "(.csv, .parquet, .geojson)"
        )
    rows: list[dict[str, Any]] = []
    ignored = 0
    unreadable: list[OSError] = []
    for folder, subfolders, names in os.walk(root, onerror=unreadable.append):
        subfolders.sort()
        # A folder that is called like a photograph is reported; what lies in it is read.
        for name in [*subfolders, *names]:
            if is_image_name(name):
                rows.append(_local_row(root, os.path.join(folder, name)))
            else:
                ignored += name in names
    for error in unreadable:
        if error.filename == root:
            raise UserError(f"{source} cannot be read: {error.strerror}")
        rows.append(_row(root, str(error.filename), kind="unreadable"))
    return Listing(root, _table(rows), ignored)


def _local_row(root: str, path: str) -> dict[str, Any]:
    try:
        found = os.stat(path)
    except OSError:
        return _row(root, path, kind="missing")
    kind = "file" if stat.S_ISREG(found.st_mode) else "not_a_file"
    return _row(root, path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, kind)


def _row(
    root: str,
    uri: str,
    size: int = 0,
    modified_ns: int = 0,
    changed_ns: int | None = None,
    kind: str = "file",
) -> dict[str, Any]:
    path = uri[len(root) :].lstrip("/\\") if uri.startswith(root) else uri
    path = path.replace(os.sep, "/")
    try:
        path.encode()
    except UnicodeEncodeError:
        # Parquet holds UTF-8 only: the name is shown escaped, and the file is rejected.
        path = os.fsencode(path).decode("utf-8", "backslashreplace")
        uri, kind = f"{root.rstrip('/')}/{path}", "name_not_utf8"
    return {
        "path": path,
        "uri": uri,
        "size": size,
        "modified_ns": modified_ns,
        "changed_ns": changed_ns,
        "kind": kind,
        "overrides": None,
    }


def _list_matches(source: str) -> Listing:
    pattern = source if _has_glob(source) else source.rstrip("/") + "/**"
    if storage.is_local(pattern):
        pattern = os.path.abspath(pattern)
    fixed = pattern[: min(pattern.index(sign) for sign in _GLOB if sign in pattern)]
    root = fixed.rpartition("/")[0] or "/"
    try:
        found = FileSystems.match([pattern])[0].metadata_list
    except Exception as error:  # credentials, buckets, schemes: each says it in its own words
        raise UserError(f"{source} cannot be listed: {error}") from error
    rows = [
        _local_row(root, item.path)
        if storage.is_local(item.path)
        else _row(root, item.path, item.size_in_bytes, _nanoseconds(item.last_updated_in_seconds))
        for item in found
        if is_image_name(item.path)
    ]
    return Listing(root, _table(rows), len(found) - len(rows))


def _nanoseconds(seconds: float | None) -> int:
    return round(1e9 * (seconds or 0.0))


def _list_manifest(source: str) -> Listing:
    if storage.is_local(source):
        source = os.path.abspath(source)
    try:
        data = storage.read_bytes(source)
    except OSError as error:
        raise UserError(f"{source} cannot be read: {error}") from error
    manifest = read_manifest(source, data)
    root = source.rpartition("/")[0] or "/"
    rows: dict[str, dict[str, Any]] = {}
    for record in manifest.to_pylist():
        uri = record.pop("uri")
        if storage.is_local(uri):
            uri = os.path.normpath(os.path.join(root, uri))
        row = _local_row(root, uri) if storage.is_local(uri) else _row(root, uri)
        row["overrides"] = to_json(record)
        rows[row["path"]] = row
    return Listing(root, _table(list(rows.values())), manifest.num_rows - len(rows))
