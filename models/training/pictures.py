"""Photographs that are read by row, decoded by threads and cached in memory up to a limit."""

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
    """Photographs in files, decoded at a model's input size.

    Up to `memory` bytes of pixels are cached; other photographs are decoded each time.
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
        self._free_bytes = memory
        self._cache: dict[int, Pixels] = {}
        self._pool = ThreadPoolExecutor(threads)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, rows: Rows) -> list[Pixels]:
        return list(self._pool.map(self._one, rows.tolist()))

    def unreadable(self, progress: Callable[[int], object] = lambda _: None) -> dict[int, str]:
        """The reason for every row whose photograph cannot be decoded; decodes all of them."""
        reasons: dict[int, str] = {}
        for row, reason in enumerate(self._pool.map(self._reason, range(len(self)))):
            if reason is not None:
                reasons[row] = reason
            progress(1)
        return reasons

    def _reason(self, row: int) -> str | None:
        try:
            self._one(row)
        except (PhotoError, OSError) as error:
            return str(error)
        return None

    def _one(self, row: int) -> Pixels:
        if row in self._cache:
            return self._cache[row]
        pixels = decode_rgb(read_photo(self.paths[row]), target=self._size.target)
        if self._free_bytes >= pixels.nbytes:
            self._free_bytes -= pixels.nbytes
            self._cache[row] = pixels
        return pixels


def ahead(
    items: Iterable[_Item], read: Callable[[_Item], _Read], depth: int = 2
) -> Iterator[_Read]:
    """`read(item)` for each item in order; a thread reads up to `depth` items ahead."""
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
