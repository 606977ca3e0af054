"""Mining of a query's training tuple: its nearest potential positives and its hardest negatives.

Arandjelovic et al., "NetVLAD: CNN architecture for weakly supervised place recognition"
(CVPR 2016): GPS decides which images may show the same place and which cannot; among these,
descriptors of the present model, stored in a cache, select the ones to learn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vladmap.models.training.recipe import HARDEST
from vladmap.retrieval.search import nearest_among

POSITIVES_M = 10.0
NEGATIVES_M = 25.0

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Tuples:
    """The training tuples of T queries: database rows, best first, -1 where there are fewer.

    `queries` (T,) are rows of the queries, `positives` (T, P), `negatives` (T, N).
    """

    queries: Rows
    positives: Rows
    negatives: Rows

    def __len__(self) -> int:
        return len(self.queries)

    def take(self, part: slice) -> Tuples:
        return Tuples(self.queries[part], self.positives[part], self.negatives[part])


@dataclass(frozen=True)
class Cache:
    """Descriptors of the queries `queries` (Q,) and of the database rows `database` (M,),
    ascending, by the model at the time when the cache was filled."""

    queries: Rows
    query_descriptors: NDArray[np.float32]
    database: Rows
    database_descriptors: NDArray[np.float32]


def draw_negatives(
    count: int, near: Rows, sampled: int, seed: Sequence[int], among: Rows | None = None
) -> Rows:
    """At most `sampled` of `count` database rows without those of `near`, ascending.

    `among` restricts the draw to some rows. The same seed draws the same.
    """
    rows = np.arange(count) if among is None else among
    far = rows[~np.isin(rows, near)]
    if len(far) <= sampled:
        return far
    return np.sort(np.random.default_rng(list(seed)).choice(far, sampled, replace=False))


def mine(
    cache: Cache,
    potential: Sequence[Rows],
    sampled: Sequence[Rows],
    remembered: Rows,
    positives: int = 1,
    hardest: int = HARDEST,
) -> tuple[Tuples, Rows]:
    """Tuples of the cached queries, and the negatives to remember for their next round.

    `potential` are the database rows within reach of each of the Q queries by GPS, `sampled` the
    negatives drawn for it, `remembered` (Q, H) those of its previous round, -1 where there are
    fewer; all of them are in the cache. A tuple has the best `positives` of the potential ones, the
    `hardest` of the sampled negatives and, behind them, those remembered that are not among these.
    Remembered for the next round are the `hardest` of both.
    """
    find = cache.database.searchsorted
    old = [row[row >= 0] for row in remembered]
    best = _nearest(cache, [find(rows) for rows in potential], positives)
    hard = _nearest(cache, [find(rows) for rows in sampled], hardest)
    both = [np.union1d(a, b) for a, b in zip(sampled, old, strict=True)]
    remembered_next = _nearest(cache, [find(rows) for rows in both], hardest)
    repeated = (remembered[:, :, None] == hard[:, None, :]).any(axis=2)
    behind = np.where(repeated, -1, remembered)
    return Tuples(cache.queries, best, np.concatenate([hard, behind], axis=1)), remembered_next


def _nearest(cache: Cache, candidates: Sequence[Rows], k: int) -> Rows:
    _, places = nearest_among(cache.query_descriptors, cache.database_descriptors, candidates, k)
    return np.where(places < 0, -1, cache.database[places])
