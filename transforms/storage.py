"""Files of an atlas on any of Beam's filesystems: whole reads, atomic writes, listings.

A file is written under a temporary name, renamed and read back before anyone may rely on it, so
that a killed worker leaves nothing that looks finished.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from photos.ids import content_hash as digest
from schemas.records import FileRef


def combined_digest(parts: Iterable[str]) -> str:
    """Identity of a list of strings, in order."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part.encode("utf-8", "surrogateescape"))
        state.update(b"\0")
    return state.hexdigest()


def join(root: str, *parts: str) -> str:
    """Path under a root. Separators are `/` on every filesystem."""
    return "/".join([root.rstrip("/") or "/", *parts]) if parts else root


def is_local(path: str) -> bool:
    return FileSystems.get_scheme(path) is None


def read_bytes(path: str) -> bytes:
    """All bytes of a file. Raises OSError where it is missing or cannot be read."""
    if is_local(path):
        with open(path, "rb") as local:
            return local.read()
    try:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as remote:
            return remote.read()
    except OSError:
        raise
    except Exception as error:  # each of Beam's filesystems has exceptions of its own
        raise OSError(f"{path}: {error}") from error


def local_copy(path: str) -> str:
    """A local path with this file's bytes: itself where it is local already."""
    if is_local(path):
        return path
    data = read_bytes(path)
    copy = os.path.join(tempfile.gettempdir(), f"vladmap-{digest(data)}")
    if not os.path.exists(copy):
        write_atomic(copy, data)
    return copy


def exists(path: str) -> bool:
    return os.path.exists(path) if is_local(path) else FileSystems.exists(path)


def write_atomic(path: str, data: bytes) -> None:
    """Write a whole file so that it is there complete or not at all.

    Raises OSError where it cannot be written or does not read back as it was written.
    """
    if is_local(path):
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    # Out of the table folders' way: readers of Parquet data sets skip names that begin with a dot.
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name}.{uuid.uuid4().hex}.tmp"
    try:
        with FileSystems.create(
            temporary, compression_type=CompressionTypes.UNCOMPRESSED
        ) as stream:
            stream.write(data)
        if is_local(path):
            os.replace(temporary, path)
        else:
            FileSystems.rename([temporary], [path])
    except BaseException:
        if exists(temporary):
            FileSystems.delete([temporary])
        raise
    if digest(read_bytes(path)) != digest(data):
        raise OSError(f"{path}: what was read back is not what was written")


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
        FileSystems.delete([path])


def sizes(paths: Iterable[str]) -> dict[str, int]:
    """Bytes of each file that exists."""
    found: dict[str, int] = {}
    remote = []
    for path in paths:
        if not is_local(path):
            remote.append(path)
        elif os.path.isfile(path):
            found[path] = os.path.getsize(path)
    if remote:
        for match in FileSystems.match([glob.escape(path) for path in remote]):
            found.update((item.path, item.size_in_bytes) for item in match.metadata_list)
    return found


def list_files(folder: str, ending: str) -> list[str]:
    """Sorted paths of the files in a folder whose names end so; none where there is no folder."""
    return sorted(path for path, _ in list_modified(folder, ending))


def list_modified(folder: str, ending: str) -> list[tuple[str, float]]:
    """(path, seconds since the epoch) of the files in a folder whose names end so."""
    if not is_local(folder):
        found = FileSystems.match([join(glob.escape(folder), "*" + ending)])[0].metadata_list
        return [(item.path, item.last_updated_in_seconds or 0.0) for item in found]
    # Not Beam's, which takes brackets in the folder's own name for a pattern.
    files = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(ending) and not entry.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                    files.append((join(folder, entry.name), entry.stat().st_mtime))
    return files


def table_bytes(table: pa.Table) -> bytes:
    """A table as Parquet: zstd, one row group per 10,000 rows, same table same bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=10_000)
    return sink.getvalue()


def read_table(path: str, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file as a table. Raises OSError or pa.ArrowInvalid where it is not whole."""
    return pq.read_table(io.BytesIO(read_bytes(path)), columns=columns)


def read_schema(path: str) -> pa.Schema:
    """The schema of a Parquet file, with its metadata."""
    return pq.read_schema(io.BytesIO(read_bytes(path)))


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
