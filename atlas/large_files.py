"""Files of an atlas that are larger than memory: written a piece at a time, and read back so."""

from __future__ import annotations

import tempfile
from collections.abc import Callable

from vladmap.atlas import storage
from vladmap.schemas.records import FileRef


def commit_written(root: str, path: str, write: Callable[[str], object], rows: int) -> FileRef:
    """Commit the file that `write` fills: it is given the path of an empty local file.

    On local disk that is a temporary file beside its place, elsewhere one of this machine, which
    needs room for it. Raises OSError where what is read back is not what was written.
    """
    place = storage.join(root, path)
    temporary = storage.temporary_name(place)
    try:
        if storage.is_local(place):
            with storage.made_locally(temporary, place):
                write(temporary)
                written = storage.file_digest(temporary)
        else:
            with tempfile.NamedTemporaryFile(prefix="vladmap-") as local:
                write(local.name)
                written = storage.file_digest(local.name)
                storage.upload(local.name, temporary, place)
    except BaseException:
        storage.delete(temporary)
        raise
    if storage.file_digest(place) != written:
        raise OSError(f"{path}: what was read back is not what was written")
    return FileRef(path, rows, storage.states([place])[place].bytes, written)
