"""What single photographs say about places, brought to one scale: deviations, low where alike.

Either way of doing so answers `block(low, high)`: z (T, N) of the queries from `low` up to `high`
and all rows of the database, NaN where either has no descriptor, which says nothing.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vladmap.retrieval.sequences.recordings import Recordings

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]

NEIGHBOURHOOD = 10
"""Rows of the database that a distance is compared with, half on each side: SeqSLAM's R_window."""

SHRINKAGE = 32.0
"""Rows that what is known beforehand of a mean or a deviation counts as."""

NUMBERS_AT_ONCE = 1 << 24
_CACHED = 1 << 19  # numbers of an array that stays in a core's cache


class Evidence(Protocol):
    """The scaled distances of queries to all rows of a database."""

    def block(self, low: int, high: int) -> Matrix:
        """z (high - low, N) of queries `low` up to `high`; a low one is a likely match."""


def without_mean(rows: Matrix, recordings: Recordings, beforehand: Matrix | None = None) -> Matrix:
    """Descriptors (N, D) from which what a whole recording has in common is taken, of unit length.

    Of each recording the mean is subtracted: the light of the day, the season, the bonnet and the
    rails are in all of its photographs, and say nothing of where one was taken (Schubert, Neubert
    and Protzel, "Unsupervised learning methods for visual place recognition in discretely and
    continuously changing environments", ICRA 2020). The mean of a short recording is drawn to that
    of all: it counts as 32 rows more. Zero rows, photographs without a descriptor, stay zero.

    In causal use, with `beforehand` (M, D), the mean is over the rows up to each, and drawn to that
    of these, the database's.
    """
    known = described(rows)
    others = rows[known] if beforehand is None else beforehand[described(beforehand)]
    if len(others) < 2:
        return rows
    overall = others.mean(axis=0, dtype=np.float64)
    result = np.zeros_like(rows)
    for first, end in recordings.spans():
        own = first + np.flatnonzero(known[first:end])
        if beforehand is not None:
            total = np.cumsum(rows[own], axis=0, dtype=np.float64) + SHRINKAGE * overall
            weight = np.arange(1, len(own) + 1)[:, None] + SHRINKAGE
            result[own] = rows[own] - (total / weight).astype(np.float32)
            continue
        total = rows[own].sum(axis=0, dtype=np.float64) + SHRINKAGE * overall
        result[own] = rows[own] - (total / (len(own) + SHRINKAGE)).astype(np.float32)
    return unit(result)


def described(rows: Matrix) -> NDArray[np.bool_]:
    """(N,) which rows (N, D) are descriptors, and not zero."""
    return np.asarray(rows.any(axis=1))


def unit(rows: Matrix) -> Matrix:
    """Rows (N, D) of unit length; those without a direction are zero."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-6)


class Standardised:
    """Distances over their spread, for each query and then for each row of the database.

    z is minus a cosine, less the mean of the query's over all rows, over their deviation: a query
    that is like everything says no more than one that is like nothing. The same is then done along
    the queries for each row of the database, except in `causal` use, where later queries are not
    known yet. With few queries a row's mean is drawn to 0 and its deviation to 1. Descriptors
    (Q, D) and (N, D) are unit vectors, or zero.
    """

    def __init__(self, queries: Matrix, database: Matrix, causal: bool = False) -> None:
        self._queries, self._database = queries, database
        self._asked = described(queries)
        self._known = described(database)
        count = len(database)
        self._mean = np.zeros(count, np.float32)
        self._scale = np.ones(count, np.float32)
        if causal:
            return
        total, square = np.zeros(count), np.zeros(count)
        step = max(1, NUMBERS_AT_ONCE // max(1, count))
        for start in range(0, len(queries), step):
            z = self._of_queries(start, min(len(queries), start + step))
            z = z[self._asked[start : start + step]]
            total += z.sum(axis=0, dtype=np.float64)
            square += np.einsum("qn,qn->n", z, z, dtype=np.float64)
        asked = int(self._asked.sum())
        mean = total / (asked + SHRINKAGE)
        variance = (square + SHRINKAGE) / (asked + SHRINKAGE) - mean**2
        self._mean = mean.astype(np.float32)
        self._scale = (1 / np.sqrt(np.maximum(variance, 1e-6))).astype(np.float32)

    def block(self, low: int, high: int) -> Matrix:
        z = self._of_queries(low, high)
        z -= self._mean
        z *= self._scale
        z[~self._asked[low:high]] = np.nan
        z[:, ~self._known] = np.nan
        return z

    def _of_queries(self, low: int, high: int) -> Matrix:
        z: Matrix = self._queries[low:high] @ -self._database.T
        count = max(1, int(self._known.sum()))
        # A zero row has the cosine 0: it adds nothing to the sums.
        mean = z.sum(axis=1, keepdims=True) / np.float32(count)
        z -= mean
        z[:, ~self._known] = 0
        spread = np.sqrt(np.einsum("qn,qn->q", z, z)[:, None] / np.float32(count))
        np.divide(z, spread, out=z, where=spread > 1e-6)
        return z


class LocalContrast:
    """SeqSLAM's local contrast enhancement of distances, in deviations.

    Each distance is compared with those of the query to the rows at most half of `neighbourhood`
    before and behind in the same recording: less their mean, over their standard deviation (of the
    sample, as in OpenSeqSLAM). Rows without a descriptor are left out of both. It is 0 where the
    deviation is, and where fewer than three distances are known: neither for nor against the row.
    Distances are Euclidean, of unit vectors (Q, D) and (N, D).

    Milford and Wyeth, SeqSLAM (ICRA 2012), equation 2. The published method then subtracts the
    least of all numbers, which changes no order.
    """

    def __init__(
        self,
        queries: Matrix,
        database: Matrix,
        recordings: Recordings,
        neighbourhood: int = NEIGHBOURHOOD,
    ) -> None:
        self._queries, self._database = queries, database
        self._asked = described(queries)
        self._known = described(database)
        rows, half = np.arange(len(recordings)), neighbourhood // 2
        self._low = np.maximum(recordings.first, rows - half)
        self._high = np.minimum(recordings.end, rows + half + 1)
        self._count = self._sums(self._known[None].astype(np.float64))

    def block(self, low: int, high: int) -> Matrix:
        apart = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * (self._queries[low:high] @ self._database.T)))
        z = np.empty_like(apart)
        step = max(1, _CACHED // max(1, apart.shape[1]))
        for start in range(0, len(apart), step):
            z[start : start + step] = self._enhanced(apart[start : start + step])
        z[~self._asked[low:high]] = np.nan
        z[:, ~self._known] = np.nan
        return z

    def _enhanced(self, apart: Matrix) -> Floats:
        # Sums are of float64 and of small numbers: their differences keep ten digits.
        values = np.where(self._known, apart.astype(np.float64) - 1, 0.0)
        count = np.maximum(self._count, 1)
        mean = self._sums(values) / count
        square = self._sums(values * values) - count * mean * mean
        deviation = np.sqrt(np.maximum(square, 0.0) / np.maximum(count - 1, 1))
        sound = (deviation > 1e-6) & (self._count >= 3)
        z: Floats = np.divide(values - mean, deviation, out=np.zeros_like(mean), where=sound)
        return z

    def _sums(self, values: Floats) -> Floats:
        """(T, N): sums of `values` (T, N) over each row's neighbourhood."""
        sums = np.zeros((values.shape[0], values.shape[1] + 1))
        np.cumsum(values, axis=1, out=sums[:, 1:])
        return np.take(sums, self._high, axis=1) - np.take(sums, self._low, axis=1)


class Likelihood:
    """Minus the log-likelihood ratio of a match, from z: what a photograph says, robustly.

    Elsewhere z is distributed as N(0, 1), which `Standardised` makes it. At the right place it is,
    in a share of the photographs, as elsewhere: a lorry, a glare, another season hide the place.
    In the others it is as N(-ALIKE, 1). The logarithm of the mixture over N(0, 1) grows with how
    unusually alike two photographs are, and falls no lower than log HIDDEN: one photograph that is
    not like its place does not outweigh the others of the drive. Measured: docs/evaluation.md.
    """

    ALIKE = 3.0
    HIDDEN = 0.8

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence

    def block(self, low: int, high: int) -> Matrix:
        z = self._evidence.block(low, high)
        z *= -self.ALIKE
        z -= self.ALIKE**2 / 2
        np.exp(np.minimum(z, 80.0, out=z), out=z)
        z *= 1 - self.HIDDEN
        z += self.HIDDEN
        np.log(z, out=z)
        return np.negative(z, out=z)
