"""Recordings: which rows of a table are one drive, in the order in which they were taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Recordings:
    """N rows in recordings: the rows of one stand together, in the order in which they were taken.

    `number` (N,) is that of the row's recording, from 0 and ascending; `first` and `end` (N,) are
    the first row of it and the row behind its last.
    """

    number: Rows
    first: Rows
    end: Rows

    def __len__(self) -> int:
        return len(self.number)

    def spans(self) -> list[tuple[int, int]]:
        """(first row, row behind the last) of each recording."""
        firsts = np.unique(self.first)
        return list(zip(firsts.tolist(), self.end[firsts].tolist(), strict=True))

    def foreign(self, moved: int) -> Rows:
        """The rows for which the row `moved` further is there, and of another recording."""
        target = np.arange(len(self)) + moved
        there = (target >= 0) & (target < len(self))
        return np.flatnonzero(there & ((target < self.first) | (target >= self.end)))

    @classmethod
    def of(cls, names: Sequence[object] | NDArray[np.generic]) -> Recordings:
        """The recordings of rows with these names. Raises ValueError if one stands in two parts."""
        array = np.asarray(names)
        starts = np.ones(len(array), bool)
        starts[1:] = array[1:] != array[:-1]
        number = np.cumsum(starts) - 1
        if len(np.unique(array)) != starts.sum():
            raise ValueError("the rows of a recording must stand together")
        edges = np.append(np.flatnonzero(starts), len(array)).astype(np.int64)
        return cls(number.astype(np.int64), edges[number], edges[number + 1])

    @classmethod
    def one(cls, count: int) -> Recordings:
        """One recording of `count` rows."""
        return cls.of(np.zeros(count, np.int64))
