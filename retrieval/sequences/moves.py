"""How far it is from one row of a database to the others, along what was driven."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vladmap.retrieval.sequences.recordings import Recordings, Rows

Floats = NDArray[np.float64]
Edges = tuple[Rows, Rows, Floats, NDArray[np.bool_]]
"""(from, to, length, whether it leads backwards), M of each."""

CROSSING_M = 10.0
"""Metres within which one can pass from one recording to another."""

_STANDING = 64
_CROSSINGS = 8  # of a row, the nearest: bounds the work where many recordings share a street


@dataclass(frozen=True, eq=False)
class Moves:
    """All moves of at most `reach` between N rows, M of them, staying (0) included.

    A move leads from row `source` (M,) to row `target` (M,), over `length` (M,) metres or frames;
    it is negative where it leads backwards along one recording. By ascending target, then source.
    """

    count: int
    reach: float
    source: Rows
    target: Rows
    length: Floats

    def among(self, rows: Rows) -> Moves:
        """The moves between some rows (n,), ascending, which are numbered anew from 0."""
        place = np.full(self.count, -1)
        place[rows] = np.arange(len(rows))
        kept = (place[self.source] >= 0) & (place[self.target] >= 0)
        source, target = place[self.source[kept]], place[self.target[kept]]
        return Moves(len(rows), self.reach, source, target, self.length[kept])


def moves(recordings: Recordings, positions: Floats | None, reach: float) -> Moves:
    """The moves of at most `reach` along the recordings, both ways, and from one to another.

    `positions` (N, 3) are metres; None counts frames. Rows that follow each other in a recording
    are joined, and rows of two recordings at most CROSSING_M metres apart (the 8 nearest); the
    length of a move is that of the shortest way over these. A row without a position is joined to
    none. Where a car stands, its photographs count as a 64th of the reach apart, so that a row has
    a bounded number of moves. Raises ValueError for a reach below 0.
    """
    if not reach >= 0:
        raise ValueError(f"a reach is 0 or more, not {reach}")
    count = len(recordings)
    edges = _edges(recordings, positions)
    near = np.flatnonzero(edges[2] <= reach)
    order = near[np.argsort(edges[0][near], kind="stable")]
    begin, to, back = edges[0][order], edges[1][order], edges[3][order]
    length = np.maximum(edges[2][order], reach / _STANDING)
    starts = np.searchsorted(begin, np.arange(count + 1))
    everywhere = np.arange(count)
    found = (everywhere, everywhere, np.zeros(count), np.zeros(count, bool))
    fresh = found
    while len(fresh[0]):
        # One edge further from all that was reached last.
        degree = starts[fresh[1] + 1] - starts[fresh[1]]
        grown = np.repeat(np.arange(len(degree)), degree)
        edge = np.arange(len(grown)) - np.repeat(np.cumsum(degree) - degree, degree)
        edge += np.repeat(starts[fresh[1]], degree)
        far = fresh[2][grown] + length[edge]
        # Backwards: over edges that all lead back.
        backwards = back[edge] & (fresh[3][grown] | (fresh[0][grown] == fresh[1][grown]))
        near = far <= reach
        step = (fresh[0][grown][near], to[edge][near], far[near], backwards[near])
        found, fresh = _shortest(found, step, count)
    order = np.lexsort((found[0], found[1]))
    far = np.where(found[3], -found[2], found[2])
    return Moves(count, reach, found[0][order], found[1][order], far[order])


def _edges(recordings: Recordings, positions: Floats | None) -> Edges:
    """The rows that are joined, both ways."""
    follows = np.flatnonzero(recordings.number[1:] == recordings.number[:-1])
    if positions is None:
        apart = np.ones(len(follows))
    else:
        apart = np.linalg.norm(positions[follows + 1] - positions[follows], axis=1)
    parts = [(follows, follows + 1, apart, np.zeros(len(follows), bool))]
    parts += [(follows + 1, follows, apart, np.ones(len(follows), bool))]
    if positions is not None and recordings.number[-1:] > 0:
        parts.append(_crossings(recordings, positions))
    begin, end, length, back = (np.concatenate(part) for part in zip(*parts, strict=True))
    known = np.isfinite(length)
    return begin[known], end[known], length[known], back[known]


def _crossings(recordings: Recordings, positions: Floats) -> Edges:
    placed = np.flatnonzero(np.isfinite(positions).all(axis=1))
    if not len(placed):
        nothing = np.empty(0, np.int64)
        return nothing, nothing, np.empty(0), np.empty(0, bool)
    tree = cKDTree(positions[placed])
    # Rows of the own recording stand between: more are asked for than are kept.
    apart, near = tree.query(
        positions[placed], min(4 * _CROSSINGS, len(placed)), distance_upper_bound=CROSSING_M
    )
    apart, near = apart.reshape(len(placed), -1), near.reshape(len(placed), -1)
    inside = np.isfinite(apart)
    other = placed[np.where(inside, near, 0)]
    inside &= recordings.number[other] != recordings.number[placed][:, None]
    inside &= np.cumsum(inside, axis=1) <= _CROSSINGS
    row, column = np.nonzero(inside)
    begin, end, length = placed[row], other[row, column], apart[row, column]
    # Each crossing may be taken both ways, though one of its ends has 8 others that are nearer.
    return (
        np.concatenate([begin, end]),
        np.concatenate([end, begin]),
        np.concatenate([length, length]),
        np.zeros(2 * len(begin), bool),
    )


def _shortest(found: Edges, step: Edges, count: int) -> tuple[Edges, Edges]:
    """`found` with the `step` of one edge more, and what of the step is new or shorter."""
    known = len(found[0])
    source, target, far, back = (np.concatenate(pair) for pair in zip(found, step, strict=True))
    is_new = np.arange(len(source)) >= known
    key = source * count + target
    order = np.lexsort((back, is_new, far, key))
    firsts = np.ones(len(order), bool)
    firsts[1:] = key[order][1:] != key[order][:-1]
    best = order[firsts]
    everything = (source[best], target[best], far[best], back[best])
    new = best[is_new[best]]
    return everything, (source[new], target[new], far[new], back[new])
