"""Photographs by their rows, decoded by threads and kept in memory while they fit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from vladmap.models.base import Pixels
from vladmap.photos.decoding.decode import decode_rgb
from vladmap.photos.files import read_photo
from vladmap.schemas.rejects import PhotoError
from vladmap.weights.preprocessing import Size

Rows = NDArray[np.int64]
_Item = TypeVar("_Item")
_Read = TypeVar("_Read")


class Images(Protocol):
    """N images that are read by row."""

    def __len__(self) -> int: ...

    def read(self, rows: Rows) -> list[Pixels]:
        """(H, W, 3) uint8 RGB, upright, of each row; safe to call from several threads."""


class Pictures:
    """Files of photographs, at the size that a model wants them.

    What was decoded stays in memory until `memory` bytes are full; the rest is decoded each time.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        size: Size,
        threads: int = 8,
        memory: int = 2 << 30,
    ) -> None:
        self.paths = tuple(paths)
        self._size = size
        self._left = memory
        self._kept: dict[int, Pixels] = {}
        self._pool = ThreadPoolExecutor(threads)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, rows: Rows) -> list[Pixels]:
        return list(self._pool.map(self._one, rows.tolist()))

    def unreadable(self, progress: Callable[[int], object] = lambda _: None) -> dict[int, str]:
        """Row and reason of every photograph that cannot be decoded; all are tried."""
        found: dict[int, str] = {}
        for row, reason in enumerate(self._pool.map(self._reason, range(len(self)))):
            if reason is not None:
                found[row] = reason
            progress(1)
        return found

    def _reason(self, row: int) -> str | None:
        try:
            self._one(row)
        except (PhotoError, OSError) as error:
            return str(error)
        return None

    def _one(self, row: int) -> Pixels:
        if row in self._kept:
            return self._kept[row]
        pixels = decode_rgb(read_photo(self.paths[row]), target=self._size.target)
        if self._left >= pixels.nbytes:
            self._left -= pixels.nbytes
            self._kept[row] = pixels
        return pixels


def ahead(
    items: Iterable[_Item], read: Callable[[_Item], _Read], depth: int = 2
) -> Iterator[_Read]:
    """`read` of each item in turn, some of them read in a thread before they are asked for."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[_Read]] = deque()
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def in_chunks(rows: Rows, size: int) -> list[Rows]:
    """The rows in parts of at most `size`."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
