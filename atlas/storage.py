"""Files of an atlas on any of Beam's filesystems: whole reads, atomic writes, listings.

A file is written under a temporary name, renamed and read back before anyone may rely on it, so
that a killed worker leaves nothing that looks finished.
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
    """Path of what lies in an atlas, under its root. Separators are `/` on every filesystem.

    Raises UserError for a name that is not plain (schemas.records.plain_path), and where a symbolic
    link on the way leads out of the root: whoever made the atlas does not say what is read and
    written elsewhere.
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
    """Whether a path is one of this machine's; others are those of Beam's filesystems."""
    return _SCHEME.match(path) is None


def _remote() -> Any:
    """Beam's filesystems, imported when a path needs them: a reader of local files has no Beam."""
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


def _as_they_are() -> dict[str, Any]:
    """The option by which Beam does not decompress what it opens, whatever its name ends in."""
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
    except Exception as error:  # each of Beam's filesystems has exceptions of its own
        raise OSError(f"{path}: {error}") from error
    if len(data) > at_most:
        raise too_large(path, at_most)
    return data


def read_whole(path: str, expected: str | None) -> bytes:
    """All bytes of a file, DamagedFile where their digest is not `expected`, if it is known."""
    data = read_bytes(path)
    if expected and digest(data) != expected:
        raise DamagedFile(path, "its bytes are not those committed")
    return data


def local_copy(path: str, expected: str | None = None) -> str:
    """A local path with this file's bytes: itself where it is local already.

    DamagedFile where their digest is not `expected`, if it is known.
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
    """A folder of this process alone, gone with it: nobody else can plant a file there."""
    return tempfile.TemporaryDirectory(prefix="vladmap-")


def exists(path: str) -> bool:
    return os.path.exists(path) if is_local(path) else _remote().exists(path)


def write_atomic(path: str, data: bytes) -> None:
    """Write a whole file so that it is there complete or not at all.

    Raises OSError where it cannot be written or does not read back as it was written.
    """
    # Out of the table folders' way: readers of Parquet data sets skip names that begin with a dot.
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
    """Temporary files of write_atomic under a root, last touched before a time (of the epoch)."""
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
    """When a local file was last written to, 0 where it went meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return os.lstat(path).st_mtime
    return 0.0


def _write_through(temporary: str, path: str, data: bytes) -> None:
    """Write, rename, and see both on the disk: a later file may rely on this one after a power cut.

    Also the folders that were not there before.
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
        pass  # some network filesystems sync no folders
    finally:
        os.close(descriptor)


def delete(path: str) -> None:
    """Delete a file or folder; nothing happens where there is none."""
    if is_local(path):
        # Not Beam's: it takes a name with brackets for a pattern.
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
    elif exists(path):
        _remote().delete([path])


class FileState(NamedTuple):
    """What is known of a file without reading it: bytes, and when it last changed in any way.

    `changed` is in seconds of the epoch, by the file system's clock.
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
    """The digest of a file's bytes, read a piece at a time. Raises OSError as read_bytes does."""
    if not is_local(path):
        return digest(read_bytes(path))
    with open(path, "rb", opener=open_regular) as local:
        return hashlib.file_digest(local, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def touch(path: str) -> None:
    """Say of a local file that it changed just now; elsewhere nothing happens."""
    if is_local(path):
        os.utime(path)


def list_files(folder: str, ending: str) -> list[str]:
    """Sorted paths of the files in a folder whose names end so; none where there is no folder."""
    return sorted(path for path, _ in list_modified(folder, ending))


def list_modified(folder: str, ending: str) -> list[tuple[str, float]]:
    """(path, seconds since the epoch) of the files in a folder whose names end so."""
    if not is_local(folder):
        matches = _remote().match([f"{glob.escape(folder)}/*{ending}"])[0].metadata_list
        return [(item.path, item.last_updated_in_seconds or 0.0) for item in matches]
    # Not Beam's, which takes brackets in the folder's own name for a pattern.
    files = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(ending) and not entry.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                    files.append((f"{folder}/{entry.name}", entry.stat().st_mtime))
    return files


def list_folders(folder: str) -> list[str]:
    """Sorted names of the folders in a folder that are plain (schemas.records.plain_path)."""
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
    """A table as Parquet: zstd, one row group per 10,000 rows, same table same bytes.

    Each page has a checksum, so that whoever reads some columns notices damage to them.
    """
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=10_000, write_page_checksum=True)
    return sink.getvalue()


def read_table(path: str, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file as a table, with `columns` in their order.

    Raises OSError where there is no such file, DamagedFile where it is not whole or lacks a column.
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
    """Rows of a Parquet file, as its footer says. Raises as read_table does."""
    with _parquet(path) as file:
        return int(file.metadata.num_rows)


@contextlib.contextmanager
def _parquet(path: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file on whose pages' checksums the reader insists; what goes wrong is its damage.

    A local file is opened by Arrow itself. A Python file may be let go by one of Arrow's threads
    when the interpreter has ended, which aborts the process.
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
    """Write one file of an atlas and say what was committed."""
    write_atomic(join(root, path), data)
    return FileRef(path, rows, len(data), digest(data))


def commit_table(root: str, path: str, table: pa.Table) -> FileRef:
    """Write one table of an atlas, and prove that Parquet's own reader finds its rows."""
    data = table_bytes(table)
    rows = pq.read_metadata(io.BytesIO(data)).num_rows
    if rows != table.num_rows:
        raise OSError(f"{path}: {rows} rows written of {table.num_rows}")
    return commit_file(root, path, data, rows)
