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
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from vladmap.photos.files import open_regular, read_regular, too_large
from vladmap.photos.ids import content_hash as digest
from vladmap.schemas.records import FileRef, is_plain_path, plain_path
from vladmap.schemas.rejects import DamagedFile, UserError

_PIECE = 16 << 20
_FEW_ROWS = 1000
_SCHEME = re.compile(r"\s*[a-zA-Z][-a-zA-Z0-9+.]*://")


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


def join_all(root: str, paths: Iterable[str]) -> dict[str, str]:
    """`join` of each of many paths, by path: each folder on the way is followed once."""
    places: dict[str, str] = {}
    folders: dict[str, bool] = {}  # whether it lies where its name says
    real = os.path.realpath(root) if is_local(root) else ""
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder not in folders:
            place, known = (join(root, folder), f"{real}/{folder}") if folder else (root, real)
            folders[folder] = is_local(root) and os.path.realpath(place) == known
        place = f"{root.rstrip('/')}/{path}"
        if folders[folder] and is_plain_path(name) and not os.path.islink(place):
            places[path] = place
        else:
            places[path] = join(root, path)
    return places


def is_local(path: str) -> bool:
    """Whether a path is on a local disk; other paths belong to Beam's filesystems."""
    return _SCHEME.match(path) is None


def remote_files() -> Any:
    """Beam's filesystems, imported when a path needs them: a reader of local files has no Beam."""
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
        with remote_files().open(path, **_as_they_are()) as remote:
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


def read_part(path: str, first: int, length: int) -> bytes:
    """`length` bytes of a file from the byte `first` on; fewer where it ends before.

    Raises OSError where it is missing or cannot be read.
    """
    if is_local(path):
        with open(path, "rb", opener=open_regular) as file:
            file.seek(first)
            return file.read(length)
    try:
        with remote_files().open(path, **_as_they_are()) as remote:
            remote.seek(first)
            return bytes(remote.read(length))
    except OSError:
        raise
    except Exception as error:  # each of Beam's filesystems raises types of its own
        raise OSError(f"{path}: {error}") from error


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
    return os.path.exists(path) if is_local(path) else remote_files().exists(path)


def temporary_name(path: str) -> str:
    """A name beside a path for what becomes it. Readers of Parquet data sets skip names that begin
    with a dot."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")


def write_atomic(path: str, data: bytes) -> str:
    """Write a whole file so that it exists either completely or not at all; returns its digest.

    Raises OSError if it cannot be written, or if reading it back gives other bytes.
    """
    temporary = temporary_name(path)
    try:
        if is_local(path):
            with made_locally(temporary, path) as stream:
                stream.write(data)
        else:
            with remote_files().create(temporary, **_as_they_are()) as stream:
                stream.write(data)
            remote_files().rename([temporary], [path])
    except BaseException:
        delete(temporary)
        raise
    written = digest(data)
    if digest(read_bytes(path)) != written:
        raise OSError(f"{path}: what was read back is not what was written")
    return written


@contextlib.contextmanager
def made_locally(temporary: str, path: str) -> Iterator[BinaryIO]:
    """Fill a temporary file in the block, rename it, and see both on the disk: a later file may
    rely on this one after a power cut. Also the folders that were not there before.
    """
    folder = os.path.dirname(path) or "."
    made = [folder]
    while not os.path.isdir(made[-1]):
        made.append(os.path.dirname(made[-1]) or ".")
    os.makedirs(folder, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(temporary, flags, 0o666), "w+b") as stream:
        yield stream
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
        remote_files().delete([path])


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
        for match in remote_files().match([glob.escape(path) for path in remote]):
            by_path.update(
                (item.path, FileState(item.size_in_bytes, item.last_updated_in_seconds or 0.0))
                for item in match.metadata_list
            )
    return by_path


def file_digest(path: str) -> str:
    """The digest of a file's bytes, read in blocks. Raises OSError as read_bytes does."""
    if not is_local(path):
        state = hashlib.blake2b(digest_size=16)
        try:
            with remote_files().open(path, **_as_they_are()) as remote:
                while piece := remote.read(_PIECE):
                    state.update(piece)
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{path}: {error}") from error
        return state.hexdigest()
    with open(path, "rb", opener=open_regular) as local:
        return hashlib.file_digest(local, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def upload(local: str, temporary: str, path: str) -> None:
    """Copy a local file to another filesystem, a piece at a time, under a temporary name first."""
    with open(local, "rb") as source, remote_files().create(temporary, **_as_they_are()) as target:
        shutil.copyfileobj(source, target, _PIECE)
    remote_files().rename([temporary], [path])


def touch(path: str) -> None:
    """Set the time of change of a local file to now; a remote file is left alone."""
    if is_local(path):
        os.utime(path)


def table_bytes(table: pa.Table, compression: str = "zstd") -> bytes:
    """A table as Parquet: one row group per 10,000 rows; equal tables give equal bytes.

    Each page has a checksum, so that damage is noticed when only some columns are read.
    """
    sink = io.BytesIO()
    pq.write_table(
        table, sink, compression=compression, row_group_size=10_000, write_page_checksum=True
    )
    return sink.getvalue()


def read_table(path: str, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file as a table, with `columns` in their order.

    Raises OSError if there is no such file, DamagedFile if it is damaged or lacks a column.
    """
    with _parquet(path) as file:
        # Of a few rows Arrow's threads take longer to be told of them than to read them.
        threads = file.metadata.num_rows > _FEW_ROWS
        if columns is None:
            return file.read(use_threads=threads)
        missing = sorted(set(columns) - set(file.schema_arrow.names))
        if missing:
            raise DamagedFile(path, f"it has no column {', '.join(missing)}")
        return file.read(columns, use_threads=threads).select(columns)


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
    return FileRef(path, rows, len(data), write_atomic(join(root, path), data))


def commit_table(root: str, path: str, table: pa.Table, compression: str = "zstd") -> FileRef:
    """Write one table of an atlas. Raises OSError if Parquet's reader misses rows."""
    data = table_bytes(table, compression)
    rows = pq.read_metadata(io.BytesIO(data)).num_rows
    if rows != table.num_rows:
        raise OSError(f"{path}: {rows} rows written of {table.num_rows}")
    return commit_file(root, path, data, rows)
