"""The photographs of an image shard: their rows, and each of them read, checked and decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vladmap.atlas import storage
from vladmap.photos.decoding.bounds import size_limit
from vladmap.photos.decoding.decode import decode_rgb
from vladmap.photos.decoding.encoded import Encoded, encoded
from vladmap.photos.files import photo_error
from vladmap.photos.ids import content_hash
from vladmap.schemas import tables
from vladmap.schemas.rejects import PhotoError, RejectReason

Target = Callable[[int, int], tuple[int, int]]

SHARD_ROWS = pa.schema(
    [
        tables.IMAGES.field(name)
        for name in ("image_id", "uri", "content_hash", "width", "height", "duplicate_of")
    ]
)
"""What `load_photo` needs of a row of `images/`."""


@dataclass(frozen=True)
class Photo:
    """A row of `images/` with its decoded pixels, (H, W, 3) uint8 upright RGB, or its error.

    In place of the pixels it may have the file, to be decoded elsewhere.
    """

    row: dict[str, Any]
    pixels: NDArray[np.uint8] | None = None
    error: PhotoError | None = None
    encoded: Encoded | None = None


def shard_rows(root: str, path: str, also: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows of an image shard without exact duplicates.

    They have the columns of SHARD_ROWS and those named in `also`.
    """
    table = storage.read_table(storage.join(root, path), [*SHARD_ROWS.names, *also])
    return table.filter(pc.is_null(table["duplicate_of"])).to_pylist()


def lowest_rows(root: str, paths: Iterable[str], count: int) -> pa.Table:
    """The `count` rows (SHARD_ROWS) of image shards whose ids are lowest, by rising id.

    Ids are digests of names: it is a fair sample, and the same in every run. One shard is in memory
    beside the rows that stay. Exact duplicates stand for nothing.
    """
    held = SHARD_ROWS.empty_table()
    for path in paths:
        table = storage.read_table(storage.join(root, path), SHARD_ROWS.names)
        table = table.filter(pc.is_null(table["duplicate_of"])).cast(SHARD_ROWS)
        if held.num_rows == count:
            table = table.filter(pc.less(table["image_id"], held["image_id"][-1]))
        if table.num_rows:
            held = pa.concat_tables([held, table]).sort_by("image_id").slice(0, count)
            held = held.combine_chunks()
    return held


def photo_bytes(uri: str, max_pixels: int) -> bytes:
    """The bytes of a photograph of the listing, on any of Beam's filesystems.

    Raises PhotoError MISSING, UNREADABLE, NOT_A_FILE, TOO_LARGE.
    """
    try:
        return storage.read_bytes(uri, size_limit(max_pixels))
    except FileNotFoundError as error:
        raise PhotoError(RejectReason.MISSING, "was there when listed, is gone now") from error
    except OSError as error:
        raise photo_error(error) from error


def load_photo(
    row: dict[str, Any], max_pixels: int, target: Target | None = None, as_file: bool = False
) -> Photo:
    """Read, check and decode one photograph.

    `as_file` leaves a JPEG of the usual kinds to be decoded elsewhere.
    """
    try:
        data = photo_bytes(row["uri"], max_pixels)
        if content_hash(data) != row["content_hash"]:
            raise PhotoError(RejectReason.CHANGED, "changed since ingest: run the build again")
        if as_file and (file := encoded(data, max_pixels)) is not None:
            return Photo(row, encoded=file)
        return Photo(row, decode_rgb(data, max_pixels=max_pixels, target=target))
    except PhotoError as error:
        return Photo(row, error=error)
