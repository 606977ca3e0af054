"""Files of an atlas on any of Beam's filesystems: whole reads, atomic writes, listings.

A file is written under a temporary name, renamed, and read back before it is entered anywhere, so
that a killed worker leaves no partial file that looks complete.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import io
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from vladmap.photos.files import open_regular, read_regular, too_large
from vladmap.photos.ids import content_hash as digest
from vladmap.schemas.records import FileRef, is_plain_path, plain_path
from vladmap.schemas.rejects import DamagedFile, UserError

_SCHEME = re.compile(r"\s*[a-zA-Z][-a-zA-Z0-9+.]*://")
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")


def combined_digest(parts: Iterable[str]) -> str:
    """Identity of a list of strings, in order."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part.encode("utf-8", "surrogateescape"))
        state.update(b"\0")
    return state.hexdigest()


def join(root: str, *parts: str) -> str:
    """The path of a file of an atlas, below its root. Separators are `/` on every filesystem.

    Raises UserError for a name that is not plain (schemas.records.plain_path), and if a symbolic
    link on the way leads out of the root: an atlas must not cause reads or writes elsewhere.
    """
    if not parts:
        return root
    try:
        path = "/".join([root.rstrip("/"), *map(plain_path, parts)])
    except ValueError as error:
        raise UserError(f"{root}: {error}") from error
    if is_local(root):
        inside = os.path.realpath(root).rstrip("/") + "/"
        leads_to = os.path.realpath(path)
        if not leads_to.startswith(inside):
            raise UserError(
                f"{path} leads out of the atlas, to {leads_to}: remove the symbolic link"
            )
    return path


def is_local(path: str) -> bool:
    """Whether a path is on a local disk; other paths belong to Beam's filesystems."""
    return _SCHEME.match(path) is None


def _remote() -> Any:
    """Beam's filesystems, imported on first use: reading local files does not need Beam."""
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


def _as_they_are() -> dict[str, Any]:
    """The arguments that stop Beam from decompressing files by the ending of their name."""
    from apache_beam.io.filesystem import CompressionTypes

    return {"compression_type": CompressionTypes.UNCOMPRESSED}


def read_bytes(path: str, at_most: int | None = None) -> bytes:
    """All bytes of a file.

    Raises OSError where it is missing or cannot be read; EFBIG where it has more than `at_most`
    bytes.
    """
    if is_local(path):
        return read_regular(path, at_most)
    try:
        with _remote().open(path, **_as_they_are()) as remote:
            if at_most is None:
                return remote.read()
            data = remote.read(at_most + 1)
    except OSError:
        raise
    except Exception as error:  # each of Beam's filesystems raises types of its own
        raise OSError(f"{path}: {error}") from error
    if len(data) > at_most:
        raise too_large(path, at_most)
    return data


def read_whole(path: str, expected: str | None) -> bytes:
    """All bytes of a file. Raises DamagedFile if `expected` is given and is not their digest."""
    data = read_bytes(path)
    if expected and digest(data) != expected:
        raise DamagedFile(path, "its bytes are not those committed")
    return data


def local_copy(path: str, expected: str | None = None) -> str:
    """A local path with this file's bytes: the path itself if it is local, else that of a copy.

    Raises DamagedFile if `expected` is given and is not the digest of the bytes.
    """
    if is_local(path):
        if expected and file_digest(path) != expected:
            raise DamagedFile(path, "its bytes are not those committed")
        return path
    data = read_whole(path, expected)
    copy = os.path.join(_copies(os.getpid()).name, digest(data))
    if not os.path.exists(copy):
        write_atomic(copy, data)
    return copy


@functools.cache
def _copies(process: int) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder that only this user can write to; it is deleted when the process ends."""
    return tempfile.TemporaryDirectory(prefix="vladmap-")


def exists(path: str) -> bool:
    return os.path.exists(path) if is_local(path) else _remote().exists(path)


def write_atomic(path: str, data: bytes) -> None:
    """Write a whole file so that it exists either completely or not at all.

    Raises OSError if it cannot be written, or if reading it back gives other bytes.
    """
    # Readers of Parquet data sets skip names that begin with a dot.
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        if is_local(path):
            _write_through(temporary, path, data)
        else:
            with _remote().create(temporary, **_as_they_are()) as stream:
                stream.write(data)
            _remote().rename([temporary], [path])
    except BaseException:
        delete(temporary)
        raise
    if digest(read_bytes(path)) != digest(data):
        raise OSError(f"{path}: what was read back is not what was written")


def half_written(root: str, before: float) -> list[str]:
    """Temporary files of write_atomic below a root, last modified before a time (of the epoch)."""
    if is_local(root):
        paths = [
            os.path.join(folder, name)
            for folder, _, names in os.walk(root)
            for name in names
            if _TEMPORARY.fullmatch(name)
        ]
        return sorted(path for path in paths if 0 < _modified(path) < before)
    return sorted(
        item.path
        for item in _remote().match([f"{glob.escape(root)}/**.tmp"])[0].metadata_list
        if _TEMPORARY.fullmatch(item.path.rpartition("/")[2])
        and 0 < (item.last_updated_in_seconds or 0) < before
    )


def _modified(path: str) -> float:
    """The time of a local file's last modification; 0 if it was deleted meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return os.lstat(path).st_mtime
    return 0.0


def _write_through(temporary: str, path: str, data: bytes) -> None:
    """Write a file, rename it, and flush both to disk, with folders that are created for it.

    A file that is written later, such as a ledger entry, may then rely on this one after a power
    cut.
    """
    folder = os.path.dirname(path) or "."
    made = [folder]
    while not os.path.isdir(made[-1]):
        made.append(os.path.dirname(made[-1]) or ".")
    os.makedirs(folder, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(temporary, flags, 0o666), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    for changed in made:
        _sync_folder(changed)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network filesystems cannot sync folders
    finally:
        os.close(descriptor)


def delete(path: str) -> None:
    """Delete a file or folder, if it exists."""
    if is_local(path):
        # Not by Beam, which takes a name with brackets for a pattern.
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
    elif exists(path):
        _remote().delete([path])


class FileState(NamedTuple):
    """The size of a file in bytes, and the time of the last change of its content or metadata.

    `changed` is in seconds since the epoch, by the clock of the file system.
    """

    bytes: int
    changed: float


def states(paths: Iterable[str]) -> dict[str, FileState]:
    """The state of each of `paths` that is a regular file."""
    by_path: dict[str, FileState] = {}
    remote = []
    for path in paths:
        if not is_local(path):
            remote.append(path)
            continue
        with contextlib.suppress(OSError):
            known = os.stat(path)
            if stat.S_ISREG(known.st_mode):
                by_path[path] = FileState(known.st_size, known.st_ctime_ns / 1e9)
    if remote:
        for match in _remote().match([glob.escape(path) for path in remote]):
            by_path.update(
                (item.path, FileState(item.size_in_bytes, item.last_updated_in_seconds or 0.0))
                for item in match.metadata_list
            )
    return by_path


def file_digest(path: str) -> str:
    """The digest of a file's bytes, read in blocks. Raises OSError as read_bytes does."""
    if not is_local(path):
        return digest(read_bytes(path))
    with open(path, "rb", opener=open_regular) as local:
        return hashlib.file_digest(local, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def touch(path: str) -> None:
    """Set the time of change of a local file to now; a remote file is left alone."""
    if is_local(path):
        os.utime(path)


def list_files(folder: str, ending: str) -> list[str]:
    """Sorted paths of the files in a folder whose names have this ending; none without a folder."""
    return sorted(path for path, _ in list_modified(folder, ending))


def list_modified(folder: str, ending: str) -> list[tuple[str, float]]:
    """(path, time of modification since the epoch) of the files whose names have this ending."""
    if not is_local(folder):
        matches = _remote().match([f"{glob.escape(folder)}/*{ending}"])[0].metadata_list
        return [(item.path, item.last_updated_in_seconds or 0.0) for item in matches]
    # Not by Beam, which takes brackets in the folder's name for a pattern.
    files = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(ending) and not entry.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    files.append((f"{folder}/{entry.name}", entry.stat().st_mtime))
    return files


def list_folders(folder: str) -> list[str]:
    """Sorted plain names (schemas.records.plain_path) of the folders in a folder."""
    names: set[str] = set()
    if is_local(folder):
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(folder) as entries,
        ):
            names = {entry.name for entry in entries if entry.is_dir()}
    else:
        names = {path.partition("/")[0] for path in list_below(folder) if "/" in path}
    return sorted(name for name in names if is_plain_path(name))


def list_below(root: str) -> list[str]:
    """Sorted paths, relative to a root, of all files below it whose names are plain."""
    if is_local(root):
        paths = [
            os.path.relpath(os.path.join(folder, name), root)
            for folder, _, names in os.walk(root)
            for name in names
        ]
    else:
        matched = _remote().match([f"{glob.escape(root)}/**"])[0].metadata_list
        paths = [item.path.removeprefix(f"{root}/") for item in matched]
    return sorted(path for path in paths if is_plain_path(path))


def table_bytes(table: pa.Table) -> bytes:
    """A table as Parquet: zstd, one row group per 10,000 rows; equal tables give equal bytes.

    Each page has a checksum, so that damage is noticed when only some columns are read.
    """
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=10_000, write_page_checksum=True)
    return sink.getvalue()


def read_table(path: str, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file as a table, with `columns` in their order.

    Raises OSError if there is no such file, DamagedFile if it is damaged or lacks a column.
    """
    with _parquet(path) as file:
        if columns is None:
            return file.read()
        missing = sorted(set(columns) - set(file.schema_arrow.names))
        if missing:
            raise DamagedFile(path, f"it has no column {', '.join(missing)}")
        return file.read(columns).select(columns)


def read_schema(path: str) -> pa.Schema:
    """The schema of a Parquet file, with its metadata. Raises as read_table does."""
    with _parquet(path) as file:
        return file.schema_arrow


def row_count(path: str) -> int:
    """The number of rows of a Parquet file, from its footer. Raises as read_table does."""
    with _parquet(path) as file:
        return int(file.metadata.num_rows)


@contextlib.contextmanager
def _parquet(path: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file with checksums verified; errors in reading it become DamagedFile.

    A local file is opened by Arrow itself: Arrow's threads may release a Python file object after
    the interpreter has ended, which aborts the process.
    """
    if is_local(path):
        os.close(open_regular(path, os.O_RDONLY))
        source: str | pa.Buffer = path
    else:
        source = pa.BufferReader(read_bytes(path))
    try:
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            yield file
    except DamagedFile:
        raise
    except (OSError, MemoryError, ValueError, pa.ArrowException) as error:
        raise DamagedFile(path, str(error).partition("\n")[0]) from error


def commit_file(root: str, path: str, data: bytes, rows: int) -> FileRef:
    """Write one file of an atlas; returns its path, size and digest for the ledger."""
    write_atomic(join(root, path), data)
    return FileRef(path, rows, len(data), digest(data))


def commit_table(root: str, path: str, table: pa.Table) -> FileRef:
    """Write one table of an atlas. Raises OSError if Parquet's reader misses rows."""
    data = table_bytes(table)
    rows = pq.read_metadata(io.BytesIO(data)).num_rows
    if rows != table.num_rows:
        raise OSError(f"{path}: {rows} rows written of {table.num_rows}")
    return commit_file(root, path, data, rows)
