"""Where a drive jumps in the map: a camera does not leave its street between two photographs.

Photographs of one place, taken for another, put the rest of a drive where that other place is. The
pairs that did it are held by the map; what contradicts them is the way from the photograph before.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.graph import connected_components

# A step is a jump if it is so many times the usual one of its drive, and so many metres more.
_USUAL_STEPS = 3.0
_MIN_METRES = 5.0
# GPS excuses it where it makes the same step, to so many standard deviations: errors of positions
# that follow each other are mostly shared.
_GPS_SIGMAS = 1.5
_LEAST_PHOTOGRAPHS = 5
# Pairs across a jump are so many places apart at most; a drive may go on behind two pieces less.
_ACROSS = 10
_MOST_PIECES = 4


def beyond_jumps(
    centres: Array, sequence: Indices, index: Indices, gps: Array, sigma: Array, held: Indices
) -> Bools:
    """Return which of n photographs lie beyond a jump of their drive, (n,).

    `centres` (n, 3) are their positions in metres, `sequence` (n,) a number for the drive of each,
    -1 for none, and `index` (n,) its place in it; `gps` (n, 3) are positions by GPS in the same
    frame, NaN where unknown, `sigma` (n,) their standard deviations. `held` (2, m) are the pairs
    that the map bears out. Jumps cut a drive into pieces. These belong together where pairs across
    the jump are held all the same (a single photograph is off), and where the drive goes on behind
    a stretch that is off. The largest set of pieces is believed.
    """
    beyond = np.zeros(len(centres), bool)
    order = np.lexsort((index, sequence))
    order = order[sequence[order] >= 0]
    place = np.full(len(centres), -1)
    place[order] = np.arange(len(order))
    # Pairs of one drive, by drives, as places in the order of all.
    pairs = place[held[:, sequence[held[0]] == sequence[held[1]]]]
    pairs = pairs[:, (pairs >= 0).all(axis=0)]
    pairs = pairs[:, np.argsort(pairs[0], kind="stable")]
    starts = np.flatnonzero(np.diff(sequence[order], prepend=-1))
    for begin, end in pairwise([*starts.tolist(), len(order)]):
        members = order[begin:end]
        if len(members) >= _LEAST_PHOTOGRAPHS:
            first, last = np.searchsorted(pairs[0], (begin, end))
            one = _Drive(
                centres[members], index[members], gps[members], sigma[members],
                pairs[:, first:last] - begin,
            )  # fmt: skip
            beyond[members] = ~one.believed()
    return beyond


@dataclass(frozen=True)
class _Drive:
    """n photographs of one drive, in order; see `beyond_jumps`."""

    centres: Array
    index: Indices
    gps: Array
    sigma: Array
    held: Indices

    def believed(self) -> Bools:
        """Return which photographs are believed, (n,)."""
        rows = np.arange(len(self.index))
        piece = np.concatenate([[0], np.cumsum(self._jumps(rows[:-1], rows[1:]))])
        count = int(piece[-1]) + 1
        start = np.searchsorted(piece, np.arange(count + 1))
        near = np.abs(self.index[self.held[0]] - self.index[self.held[1]]) <= _ACROSS
        first, second = piece[self.held[:, near]]
        ends = [(first, second)]
        for apart in range(2, min(_MOST_PIECES, count)):
            before, after = start[1 : count - apart + 1] - 1, start[apart:count]
            goes_on = np.flatnonzero(~self._jumps(before, after))
            ends.append((goes_on, goes_on + apart))
        one, other = (np.concatenate(part) for part in zip(*ends, strict=True))
        group = connected_components(count, one, other)[piece]
        return np.asarray(group == np.argmax(np.bincount(group)))

    def _jumps(self, before: Indices, after: Indices) -> Bools:
        """Return whether the drive jumps between two photographs, of each two rows."""
        places = np.maximum(self.index[after] - self.index[before], 1)
        step = self.centres[after] - self.centres[before]
        by_gps = np.linalg.norm((step - self.gps[after] + self.gps[before])[:, :2], axis=1)
        limit = np.maximum(
            _GPS_SIGMAS * np.hypot(self.sigma[after], self.sigma[before]), _MIN_METRES
        )
        far = np.linalg.norm(step, axis=1) > _USUAL_STEPS * self._usual() * places + _MIN_METRES
        # GPS that is unknown compares as false.
        return np.asarray(far & ~(by_gps <= limit))

    def _usual(self) -> float:
        """Return the usual step from one place in the drive to the next, in metres."""
        length = np.linalg.norm(np.diff(self.centres, axis=0), axis=1)
        return float(np.median(length / np.maximum(np.diff(self.index), 1)))
