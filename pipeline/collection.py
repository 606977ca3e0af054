"""The listing of a collection's files, from a folder, a glob or a manifest."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from apache_beam.io.filesystem import FileMetadata, FileSystem
from apache_beam.io.filesystems import FileSystems

from vladmap.atlas import storage
from vladmap.photos.ids import IMAGE_SUFFIXES, is_image_name, is_systems_name
from vladmap.photos.manifests.columns import is_manifest_name
from vladmap.photos.manifests.rows import to_json
from vladmap.photos.manifests.table import manifest_notes, read_manifest
from vladmap.schemas.ingest_tables import LISTING
from vladmap.schemas.rejects import UserError

_GLOB = frozenset("*?[")

_NAMED = 3

_FOREIGN = "thumbnails, waste and hidden files"
_OTHER = "without the name of a photograph"
_AGAIN = "links to folders that are read anyway"


class LeftOut:
    """Files that a listing leaves out: how many of each kind, and the first names."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._endings: Counter[str] = Counter()

    def add(self, kind: str, name: str) -> None:
        self._names.setdefault(kind, []).append(name)

    def add_other(self, name: str) -> None:
        """Count a file whose name is not that of a photograph."""
        stem, dot, ending = name.rpartition("/")[2].rpartition(".")
        self._endings[f".{ending.lower()}" if stem and dot else "no ending"] += 1

    def sentences(self) -> tuple[str, ...]:
        """One sentence for each kind, for the log, the summary and the report."""
        lines = []
        if total := self._endings.total():
            common = sorted(self._endings.items(), key=lambda item: (-item[1], item[0]))
            shown = [f"{count} {ending}" for ending, count in common[:6]]
            shown += [f"{total - sum(count for _, count in common[:6])} others"] * (len(common) > 6)
            lines.append(f"{total} files {_OTHER} are left out: {', '.join(shown)}")
        for kind, names in sorted(self._names.items()):
            shown = sorted(names)[:_NAMED] + ["..."] * (len(names) > _NAMED)
            lines.append(f"{len(names)} {kind} are left out: {', '.join(map(_shown, shown))}")
        return tuple(lines)


def _shown(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Listing:
    """A collection's root and its files (columns of schemas.ingest_tables.LISTING), sorted by path.

    `notes` are sentences on what was left out or guessed, and why.
    """

    root: str
    table: pa.Table
    notes: tuple[str, ...] = ()

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
        endings = " ".join(f".{suffix}" for suffix in IMAGE_SUFFIXES)
        raise UserError(
            "; ".join([f"{source}: no photographs there (looked for {endings})", *listing.notes])
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
    rows, left_out, unreadable = _below(root)
    for error in unreadable:
        if error.filename == root:
            raise UserError(f"{source} cannot be read: {error.strerror}")
        rows.append(_row(root, str(error.filename), kind="unreadable"))
    return Listing(root, _table(rows), left_out.sentences())


def _below(
    root: str, wanted: Callable[[str], object] = lambda path: True
) -> tuple[list[dict[str, Any]], LeftOut, list[OSError]]:
    """Rows of the `wanted` paths below a local folder, files left out, and unreadable folders."""
    rows: list[dict[str, Any]] = []
    left_out = LeftOut()
    unreadable: list[OSError] = []
    # A folder that several links lead to, or a circle of links, is read once, by the path with the
    # fewest links: paths without links first, then those with one link, with two, ...
    read: set[str] = set()
    waiting = [root]
    while waiting:
        links: list[str] = []
        for start in waiting:
            for folder, path in _walk(root, start, left_out, unreadable, read, links):
                name = path.rpartition("/")[2]
                if not wanted(path):
                    continue
                # A folder whose name is that of a photograph is reported, and its content is read.
                if is_image_name(name):
                    rows.append(_local_row(root, path))
                elif not folder:
                    left_out.add_other(name)
        waiting = sorted(links)
    return rows, left_out, unreadable


def _walk(
    root: str,
    start: str,
    left_out: LeftOut,
    unreadable: list[OSError],
    read: set[str],
    links: list[str],
) -> Iterator[tuple[bool, str]]:
    """(is a folder, path) of all in `start` and below it; links to folders go to `links`."""
    own = os.path.realpath(root)
    for folder, subfolders, names in os.walk(start, onerror=unreadable.append):
        inside = folder.removeprefix(root).lstrip("/")
        # Folders are recognised by path, not inode: some network drives have no inodes.
        real = os.path.realpath(folder)
        # A link to a folder above the collection does not make what lies there part of it.
        above = folder != root and f"{own}/".startswith(f"{real.rstrip('/')}/")
        if real in read or above:
            left_out.add(_AGAIN, inside)
            subfolders.clear()
            continue
        read.add(real)
        for name in sorted(subfolders):
            path = os.path.join(folder, name)
            if is_systems_name(name):
                left_out.add(_FOREIGN, os.path.join(inside, name) + "/")
                subfolders.remove(name)
                continue
            yield True, path
            if os.path.islink(path):
                links.append(path)
        subfolders.sort()
        for name in names:
            if is_systems_name(name):
                left_out.add(_FOREIGN, os.path.join(inside, name))
            else:
                yield False, os.path.join(folder, name)


def _local_row(root: str, path: str) -> dict[str, Any]:
    try:
        status = os.stat(path)
    except PermissionError:
        return _row(root, path, kind="unreadable")
    except (OSError, ValueError):  # ValueError: a name that contains NUL
        return _row(root, path, kind="missing")
    kind = "file" if stat.S_ISREG(status.st_mode) else "not_a_file"
    return _row(root, path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, kind)


def _row(
    root: str,
    uri: str,
    size: int = 0,
    modified_ns: int = 0,
    changed_ns: int | None = None,
    kind: str = "file",
) -> dict[str, Any]:
    path = uri.removeprefix(f"{root.rstrip('/')}/")
    try:
        path.encode()
    except UnicodeEncodeError:
        # Parquet holds only UTF-8: the name is stored escaped, and the file is rejected later.
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
    if storage.is_local(pattern):
        # Beam's own search does not follow links.
        rows, left_out, _ = _below(root, re.compile(FileSystem.translate_pattern(pattern)).match)
        return Listing(root, _table(rows), left_out.sentences())
    try:
        matches = FileSystems.match([pattern])[0].metadata_list
    except Exception as error:  # each of Beam's filesystems raises types of its own
        raise UserError(f"{source} cannot be listed: {error}") from error
    left_out = LeftOut()
    rows = []
    for item in matches:
        inside = item.path.removeprefix(f"{root.rstrip('/')}/")
        if any(map(is_systems_name, inside.split("/"))):
            left_out.add(_FOREIGN, inside)
        elif not is_image_name(item.path):
            left_out.add_other(item.path)
        else:
            rows.append(_remote_row(root, item.path, item))
    return Listing(root, _table(rows), left_out.sentences())


def _remote_row(root: str, uri: str, metadata: FileMetadata | None) -> dict[str, Any]:
    """The row of a file on a store; without metadata, reading will tell whether it is there."""
    if metadata is None:
        return _row(root, uri)
    seconds = metadata.last_updated_in_seconds or 0.0
    return _row(root, uri, metadata.size_in_bytes, round(1e9 * seconds))


def _metadata(uri: str) -> FileMetadata | None:
    try:
        return FileSystems.get_filesystem(uri).metadata(uri)
    except Exception:  # each store raises types of its own
        return None


def _list_manifest(source: str) -> Listing:
    if storage.is_local(source):
        source = os.path.abspath(source)
    try:
        data = storage.read_bytes(source)
    except OSError as error:
        raise UserError(f"{source} cannot be read: {error}") from error
    manifest = read_manifest(source, data)
    root = source.rpartition("/")[0] or "/"
    records = manifest.to_pylist()
    places = [_place(root, record.pop("uri")) for record in records]
    remote = sorted({uri for uri, _ in places if not storage.is_local(uri)})
    with ThreadPoolExecutor(16) as pool:
        metadata = dict(zip(remote, pool.map(_metadata, remote), strict=True))
    rows: dict[str, dict[str, Any]] = {}
    again: list[str] = []
    for (uri, _), record in zip(places, records, strict=True):
        row = _remote_row(root, uri, metadata[uri]) if uri in metadata else _local_row(root, uri)
        row["overrides"] = to_json(record)
        if row["path"] in rows:
            again.append(row["path"])
        rows.setdefault(row["path"], row)
    notes = list(manifest_notes(manifest))
    if slashes := sum(other for _, other in places):
        notes.append(f"{slashes} paths with \\ are read with /")
    if again:
        shown = sorted(again)[:_NAMED] + ["..."] * (len(again) > _NAMED)
        notes.append(
            f"{len(again)} rows name a file that a row before them names, and do not count: "
            + ", ".join(map(_shown, shown))
        )
    return Listing(root, _table(list(rows.values())), tuple(notes))


def _place(root: str, uri: str) -> tuple[str, bool]:
    """The full URI of a manifest's entry, and whether its backslashes were taken for slashes."""
    if not storage.is_local(uri):
        return uri, False
    place = os.path.normpath(os.path.join(root, uri))
    if "\\" in uri and not os.path.lexists(place):
        other = os.path.normpath(os.path.join(root, uri.replace("\\", "/")))
        if os.path.lexists(other):
            return other, True
    return place, False
