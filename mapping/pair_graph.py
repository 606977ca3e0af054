"""Verified pairs as a graph of photographs: partners, and rotations around three of them."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.photographs import Pairs

# A cycle of three pairs closes if its rotations multiply to less than this many degrees.
_CYCLE_DEG = 8.0


class PairGraph:
    """Pairs as the edges of a graph of photographs; partners are photographs that share a pair."""

    def __init__(self, size: int, pairs: Pairs) -> None:
        self.size, self.pairs = size, pairs
        count = len(pairs.first)
        ends = np.concatenate([pairs.first, pairs.second])
        order = np.argsort(ends, kind="stable")
        self.partner = np.concatenate([pairs.second, pairs.first])[order]
        self.pair = np.concatenate([np.arange(count), np.arange(count)])[order]
        self.start = np.searchsorted(ends[order], np.arange(size + 1))
        low = np.minimum(pairs.first, pairs.second)
        high = np.maximum(pairs.first, pairs.second)
        self.by_key = np.argsort(low * size + high, kind="stable")
        self.keys = (low * size + high)[self.by_key]
        known: Bools = np.asarray(np.isfinite(pairs.rotation).all(axis=1), bool)
        self.known = known
        quaternions = np.where(known[:, None], pairs.rotation, [1.0, 0.0, 0.0, 0.0])
        self.rotation = Rotation.from_quat(quaternions[:, [1, 2, 3, 0]])

    def around(self, images: Indices) -> tuple[Indices, Indices, Indices]:
        """Return three arrays, for every pair of each image: row of `images`, partner, pair."""
        count = self.start[images + 1] - self.start[images]
        row = np.repeat(np.arange(len(images)), count)
        place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        at = self.start[images][row] + place
        return row, self.partner[at], self.pair[at]

    def partners(self, trusted: Bools) -> Indices:
        """Return how many trusted pairs each photograph has, (n,)."""
        ends = np.concatenate([self.pairs.first[trusted], self.pairs.second[trusted]])
        return np.bincount(ends, minlength=self.size)

    def find(self, a: Indices, b: Indices) -> Indices:
        """Return the pair of each two images, -1 where they have none."""
        key = np.minimum(a, b) * self.size + np.maximum(a, b)
        at = np.searchsorted(self.keys, key)
        inside = np.flatnonzero(at < len(self.keys))
        inside = inside[self.keys[at[inside]] == key[inside]]
        pair = np.full(len(key), -1, np.int64)
        pair[inside] = self.by_key[at[inside]]
        return pair

    def _oriented(self, pair: Indices, start: Indices) -> Rotation:
        """Return the rotation of each pair, from `start` to the other end."""
        forward = self.pairs.first[pair] == start
        vectors = self.rotation[pair].as_rotvec()
        return Rotation.from_rotvec(np.where(forward[:, None], vectors, -vectors))

    def cycles(
        self, rows: Indices, trusted: Bools, distance: Array | None = None
    ) -> tuple[Indices, Indices]:
        """Return how many cycles of three photographs close, and stay open, at each pair of `rows`.

        The other two pairs of a cycle are trusted; with `distance` both are shorter than the pair
        itself. A cycle closes if the product of its rotations is within 8 degrees of the identity.
        """
        first, second = self.pairs.first[rows], self.pairs.second[rows]
        row, third, side = self.around(first)
        keep = trusted[side] & self.known[side] & (third != second[row]) & self.known[rows[row]]
        row, third, side = row[keep], third[keep], side[keep]
        other = self.find(third, second[row])
        there = np.flatnonzero(other >= 0)
        there = there[trusted[other[there]] & self.known[other[there]]]
        row, third, side, other = row[there], third[there], side[there], other[there]
        if distance is not None:
            longest = np.fmax(distance[side], distance[other])
            keep = ~(longest >= distance[rows[row]])
            row, third, side, other = row[keep], third[keep], side[keep], other[keep]
        if len(row) == 0:
            nothing = np.zeros(len(rows), np.int64)
            return nothing, nothing
        direct = self._oriented(rows[row], first[row])
        around = self._oriented(other, third) * self._oriented(side, first[row])
        angle = np.degrees((direct.inv() * around).magnitude())
        closes = angle <= _CYCLE_DEG
        return (
            np.bincount(row[closes], minlength=len(rows)),
            np.bincount(row[~closes], minlength=len(rows)),
        )

    def more_alike_than_nearer(self, rows: Indices, distance: Array, trusted: Bools) -> Bools:
        """Return which pairs of `rows` have more inliers than nearer pairs of their photographs.

        The number of inliers decreases with the distance of two photographs. A pair is compared
        with the median over the trusted pairs of either photograph that are less than half as long.
        """
        ends = np.concatenate([self.pairs.first[rows], self.pairs.second[rows]])
        row, _, pair = self.around(ends)
        row %= len(rows) if len(rows) else 1
        nearer = trusted[pair] & (distance[pair] < distance[rows[row]] / 2)
        row, pair = row[nearer], pair[nearer]
        order = np.lexsort((self.pairs.inliers[pair], row))
        row, inliers = row[order], self.pairs.inliers[pair[order]]
        count = np.bincount(row, minlength=len(rows))
        start = np.cumsum(count) - count
        there = count > 0
        median = np.full(len(rows), np.inf)
        low = (start + (count - 1) // 2)[there]
        high = (start + count // 2)[there]
        median[there] = (inliers[low] + inliers[high]) / 2
        return np.asarray(self.pairs.inliers[rows] > median)
