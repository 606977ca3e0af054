"""Where a drive jumps in the map: a camera does not leave its street between two photographs.

Photographs of one place, taken for another, put the rest of a drive where that other place is. The
pairs that did it are held by the map; what contradicts them is the way from the last photograph
before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vladmap.mapping.arrays import Array, Bools, Indices

# A step is a jump if it is so many times the usual one of its drive, and so many metres more.
_USUAL_STEPS = 3.0
_MIN_METRES = 5.0
# GPS excuses it where it makes the same step, to so many standard deviations: errors of positions
# that follow each other are mostly shared.
_GPS_SIGMAS = 1.5
_LEAST_PHOTOGRAPHS = 5


def beyond_jumps(
    centres: Array, sequence: Indices, index: Indices, gps: Array, sigma: Array
) -> Bools:
    """Return which of n photographs lie beyond a jump of their drive, (n,).

    `centres` (n, 3) are their positions in metres, `sequence` (n,) a number for the drive of each,
    -1 for none, and `index` (n,) its place in it; `gps` (n, 3) are positions by GPS in the same
    frame, NaN where unknown, `sigma` (n,) their standard deviations. Jumps cut a drive into pieces.
    The largest is believed, and with it, one after the other, those that the drive reaches from it
    without a jump: where a stretch is off, the drive goes on beyond it.
    """
    beyond = np.zeros(len(centres), bool)
    for drive in np.unique(sequence[sequence >= 0]):
        members = np.flatnonzero(sequence == drive)
        members = members[np.argsort(index[members], kind="stable")]
        if len(members) >= _LEAST_PHOTOGRAPHS:
            one = _Drive(centres[members], index[members], gps[members], sigma[members])
            beyond[members] = ~one.believed()
    return beyond


@dataclass(frozen=True)
class _Drive:
    """n photographs of one drive, in order; see `beyond_jumps`."""

    centres: Array
    index: Indices
    gps: Array
    sigma: Array

    def believed(self) -> Bools:
        """Return which photographs are believed, (n,)."""
        rows = np.arange(len(self.index))
        piece = np.concatenate([[0], np.cumsum(self._jumps(rows[:-1], rows[1:]))])
        start = np.searchsorted(piece, np.arange(piece[-1] + 2))
        largest = int(np.argmax(np.diff(start)))
        good = {largest}
        last = start[largest + 1] - 1
        for number in range(largest + 1, piece[-1] + 1):
            if not self._jumps(np.array([last]), start[[number]])[0]:
                good.add(number)
                last = start[number + 1] - 1
        first = start[largest]
        for number in range(largest - 1, -1, -1):
            if not self._jumps(start[[number + 1]] - 1, np.array([first]))[0]:
                good.add(number)
                first = start[number]
        return np.isin(piece, sorted(good))

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
