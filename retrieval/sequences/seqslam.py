"""SeqSLAM: places by the trajectories of a whole window of photographs through their distances.

Milford and Wyeth, "SeqSLAM: Visual route-based navigation for sunny summer days and stormy winter
nights" (ICRA 2012), over the distances of any descriptor. The searches by cone and hybrid are those
of Talbot, Garg and Milford, "OpenSeqSLAM2.0" (IROS 2018, arXiv 1804.02156).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vladmap.retrieval.sequences.evidence import NUMBERS_AT_ONCE, Evidence, Matrix
from vladmap.retrieval.sequences.recordings import Recordings, Rows

SEARCHES = ("trajectory", "cone", "hybrid")

_CACHED = 1 << 18  # numbers of an array that stays in a core's cache


@dataclass(frozen=True)
class SeqSlam:
    """How SeqSLAM searches.

    `frames` are the photographs of a window. The published window ends at the query; a `centred`
    one reaches as far behind it as before, as OpenSeqSLAM's, which a drive that is over allows. A
    trajectory passes `slowest` to `fastest` rows of the database for each photograph of the drive
    that is looked for, in steps of `step`.
    """

    frames: int = 20
    search: str = "trajectory"
    centred: bool = True
    slowest: float = 0.8
    fastest: float = 1.2
    step: float = 0.1

    def __post_init__(self) -> None:
        if self.search not in SEARCHES:
            raise ValueError(f"unknown search {self.search!r}: one of {', '.join(SEARCHES)}")
        if self.frames < 1 or not 0 <= self.slowest <= self.fastest or not self.step > 0:
            raise ValueError("a window has at least one photograph, and no velocity is below 0")

    def offsets(self) -> Rows:
        """The places (frames,) of the window's photographs relative to the query's, ascending."""
        last = (self.frames - 1) // 2 if self.centred else 0
        return np.arange(last - self.frames + 1, last + 1)

    def lines(self) -> Rows:
        """(V, frames): the rows of each trajectory relative to the query's, each line but once."""
        count = int((self.fastest - self.slowest) / self.step + 1e-9) + 1
        velocities = self.slowest + self.step * np.arange(count)
        steps = velocities[:, None] * self.offsets()
        # Half a row is rounded away from the query on both sides: lines are symmetrical.
        rounded = np.sign(steps) * np.floor(np.abs(steps) + 0.5 + 1e-9)
        return np.unique(rounded.astype(np.int64), axis=0)


def scores(
    evidence: Evidence, queries: Recordings, database: Recordings, search: SeqSlam
) -> Iterator[tuple[int, Matrix]]:
    """(first query, scores (q, N)) of blocks of queries; the lowest score is the best match.

    `trajectory`: the mean z along the best line through the row. `hybrid`: the same over the lines
    that hold the best row of one of the window's photographs, inf where none does. `cone`: 1 less
    the share of the window's photographs whose best row lies between the slowest and the fastest
    line. No window crosses the end of a recording: photographs beyond it are left out. Rows of the
    database beyond its recording, and what has no descriptor, count as average ones (z = 0): they
    are evidence neither for nor against. Memory is bounded whatever the number of rows.
    """
    offsets = search.offsets()
    before, behind = -int(offsets[0]), int(offsets[-1])
    block = max(2 * search.frames, NUMBERS_AT_ONCE // max(1, len(database)))
    part = max(search.frames, _CACHED // max(1, len(database)))
    for first, end in queries.spans():
        for start in range(first, end, block):
            stop = min(end, start + block)
            low, high = max(first, start - before), min(end, stop + behind)
            z = evidence.block(low, high)
            for at in range(start, stop, part):
                own = slice(at, min(stop, at + part))
                a, b = max(low, own.start - before), min(high, own.stop + behind)
                inside = slice(own.start - a, own.stop - a)
                yield at, window_scores(z[a - low : b - low], inside, database, search)


def window_scores(z: Matrix, own: slice, database: Recordings, search: SeqSlam) -> Matrix:
    """The scores of the queries `own` of consecutive ones, whose z (T, N) are given.

    The T queries are of one recording, and all that the windows of `own` have.
    """
    best = np.argmin(np.where(np.isnan(z), np.inf, z), axis=1)
    best[np.isnan(z).all(axis=1)] = -1
    if search.search == "cone":
        return _cone(best, own, database, search)
    cost = np.nan_to_num(z, nan=0.0)
    is_best = None
    if search.search == "hybrid":
        is_best = np.zeros(z.shape, np.float32)
        seen = np.flatnonzero(best >= 0)
        is_best[seen, best[seen]] = 1
    shape = (own.stop - own.start, z.shape[1])
    lowest = np.full(shape, np.inf, np.float32)
    for line in search.lines():
        total = np.zeros(shape, np.float32)
        held = np.zeros(shape, np.float32)
        for offset, moved in zip(search.offsets().tolist(), line.tolist(), strict=True):
            rows, targets = _overlap(own, offset, len(z))
            _add_moved(total[targets], cost[rows], moved, database)
            if is_best is not None:
                _add_moved(held[targets], is_best[rows], moved, database)
        if is_best is not None:
            total[held == 0] = np.inf
        np.minimum(lowest, total, out=lowest)
    lowest /= _photographs(own, len(z), search)[:, None]
    return lowest


def _photographs(own: slice, count: int, search: SeqSlam) -> Matrix:
    """How many photographs of each window there are, of `count` queries."""
    places = np.arange(own.start, own.stop)[:, None] + search.offsets()
    return ((places >= 0) & (places < count)).sum(axis=1).astype(np.float32)


def _overlap(own: slice, offset: int, count: int) -> tuple[slice, slice]:
    """Of `count` queries those `offset` behind each of `own`, and the places in `own` of these."""
    low, high = max(0, own.start + offset), min(count, own.stop + offset)
    high = max(low, high)
    at = low - offset - own.start
    return slice(low, high), slice(at, at + high - low)


def _add_moved(total: Matrix, values: Matrix, moved: int, database: Recordings) -> None:
    """Add to each column what stands `moved` columns further, where that is the same recording."""
    count = values.shape[1]
    into = slice(min(count, max(0, -moved)), max(0, min(count, count - moved)))
    if into.start >= into.stop:
        return
    foreign = database.foreign(moved)
    kept = total[:, foreign]
    total[:, into] += values[:, into.start + moved : into.stop + moved]
    total[:, foreign] = kept


def _cone(best: Rows, own: slice, database: Recordings, search: SeqSlam) -> Matrix:
    """1 less the share of each window's photographs whose best row lies in the cone."""
    count = len(database)
    lines = search.lines()
    nearest, furthest = lines.min(axis=0), lines.max(axis=0)
    edges = np.zeros((own.stop - own.start, count + 1), np.float32)
    for at, offset in enumerate(search.offsets().tolist()):
        rows, targets = _overlap(own, offset, len(best))
        seen = np.flatnonzero(best[rows] >= 0)
        hit = best[rows][seen]
        low = np.maximum(database.first[hit], hit - furthest[at])
        high = np.minimum(database.end[hit], hit - nearest[at] + 1)
        inside = low < high
        into = np.arange(targets.start, targets.stop)[seen][inside]
        np.add.at(edges, (into, low[inside]), 1)
        np.add.at(edges, (into, high[inside]), -1)
    held = np.cumsum(edges, axis=1, dtype=np.float32)[:, :count]
    missed: Matrix = 1 - held / _photographs(own, len(best), search)[:, None]
    return missed
