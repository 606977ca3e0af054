"""Matches by mutual nearest neighbours of descriptors.

Both matchers depend on their arguments alone and are safe to call from several threads: their time
is spent in BLAS and numpy, outside the interpreter's lock. The numbers of a descriptor are small
integers divided by a power of two, so that their products and sums are exact in float32 and do not
depend on how BLAS splits the work.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vladmap.features.base import LocalFeatures, Matches
from vladmap.features.products import best_two

_ROWS_AT_ONCE = 2048
_STEPS = 1024.0


def rounded(unit: NDArray[np.float32]) -> NDArray[np.float16]:
    """Numbers of magnitude 1 or less, rounded to multiples of 1/1024.

    float16 holds these exactly, and a sum of products of them is exact in float32, so that matches
    do not depend on the order of summation.
    """
    return (np.round(unit * _STEPS) / _STEPS).astype(np.float16)


@dataclass(frozen=True)
class RatioTest:
    """Mutual nearest neighbours of RootSIFT that pass Lowe's ratio test in both directions.

    The test of Lowe (IJCV 2004) with COLMAP's thresholds, on the angle between descriptors in
    radians. Descriptors are stored as integers; times `unit` they have unit length.
    """

    max_ratio: float = 0.8
    max_distance: float = 0.7
    unit: float = 1.0 / 512.0
    min_inlier_share: float = 0.0
    inliers_a_cosine: float = 200.0

    def match(self, a: LocalFeatures, b: LocalFeatures) -> Matches:
        """As `Matcher.match` says."""
        _check(a, b)
        if len(a) == 0 or len(b) == 0:
            return np.zeros((0, 2), np.uint32)
        ours, theirs = (each.descriptors.astype(np.uint8) for each in (a, b))
        nearest, best, second = best_two(ours, theirs)
        distance = self._angle(best)
        passes = (distance <= self.max_distance) & self._is_apart(best, second)
        index = np.flatnonzero(passes)
        # Those few back: products are exact, so that a match is mutual where they are equal.
        _, back, back_second = best_two(theirs[nearest[index]], ours)
        index = index[(back == best[index]) & self._is_apart(back, back_second)]
        return _one_to_one(index, nearest)

    def _is_apart(
        self, best: NDArray[np.float32], second: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Whether the nearest passes the ratio test, by the products of the two nearest."""
        return np.asarray(self._angle(best) < self.max_ratio * self._angle(second))

    def _angle(self, products: NDArray[np.float32]) -> NDArray[np.float32]:
        # The unit is a power of two: cosines are exact, too. -inf stands for none.
        return np.arccos(np.clip(products * np.float32(self.unit**2), -1.0, 1.0))


@dataclass(frozen=True)
class MinCosine:
    """Mutual nearest neighbours of descriptors of unit length whose cosine exceeds a threshold."""

    min_cosine: float
    min_inlier_share: float
    inliers_a_cosine: float = 200.0

    def match(self, a: LocalFeatures, b: LocalFeatures) -> Matches:
        """As `Matcher.match` says."""
        _check(a, b)
        if len(a) == 0 or len(b) == 0:
            return np.zeros((0, 2), np.uint32)
        rows, columns = (each.descriptors.astype(np.float32) for each in (a, b))
        nearest, best, column_best = _nearest(rows, columns)
        # Cosines are exact: where a row's best equals that of its column, the match is mutual.
        mutual = (best > self.min_cosine) & (best == column_best[nearest])
        return _one_to_one(np.flatnonzero(mutual), nearest)


def _check(a: LocalFeatures, b: LocalFeatures) -> None:
    if (
        a.descriptors.dtype != b.descriptors.dtype
        or a.descriptors.shape[1:] != b.descriptors.shape[1:]
    ):
        raise ValueError("the two images have descriptors of different kinds")


def _one_to_one(index: NDArray[np.intp], nearest: NDArray[np.intp]) -> Matches:
    """Matches of the rows `index`; where identical rows match one column, the first is kept."""
    _, first = np.unique(nearest[index], return_index=True)
    index = index[np.sort(first)]
    return np.stack([index, nearest[index]], axis=1).astype(np.uint32)


def _nearest(
    rows: NDArray[np.float32], columns: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
    """(nearest column, its cosine) of each row; best cosine of each column."""
    nearest = np.empty(len(rows), np.intp)
    best = np.empty(len(rows), np.float32)
    column_best = np.full(len(columns), -np.inf, np.float32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        cosine = rows[part] @ columns.T
        nearest[part] = cosine.argmax(axis=1)
        np.maximum(column_best, cosine.max(axis=0), out=column_best)
        best[part] = cosine[np.arange(len(cosine)), nearest[part]]
    return nearest, best, column_best
