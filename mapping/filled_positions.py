"""Positions of photographs whose GPS is missing or wrong, from their sequence or their partners."""

from __future__ import annotations

import numpy as np

from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.photographs import Pairs, Photographs

GPS_SIGMAS = 4.0
"""The error of GPS explains distances of up to so many standard deviations of both positions."""

SCENE_M = 25.0
"""The usual extent of a scene: the largest distance of photographs that see the same things."""

# A missing position is interpolated from its sequence over at most so many photographs.
_MAX_GAP = 10
# A position is a blunder if it is this far, beyond its error and the scatter, from the median of
# the four neighbours in its sequence.
_BLUNDER_M = 20.0


def fill_positions(photographs: Photographs) -> tuple[Array, Array]:
    """Return positions (n, 3) and standard deviations (n,), completed from the sequences.

    Blunders and missing positions are interpolated between the known positions before and after, or
    take that of the only known side. NaN remains where neither is within ten photographs.
    """
    position, sigma = photographs.position.copy(), photographs.sigma.copy()
    order = np.lexsort((photographs.index, photographs.sequence))
    order = order[photographs.sequence[order] >= 0]
    if len(order) == 0:
        return position, sigma
    sequence, index = photographs.sequence[order], photographs.index[order]
    position[order[_blunders(position[order], sigma[order], sequence)]] = np.nan

    known = np.isfinite(position[order, 0])
    number = np.arange(len(order))
    before = np.maximum.accumulate(np.where(known, number, -1))
    after = np.minimum.accumulate(np.where(known, number, len(order))[::-1])[::-1]

    def reach(at: Indices) -> Array:
        """Return the steps to the known position at `at` in the same sequence, or infinity."""
        inside = (at >= 0) & (at < len(order))
        at = np.clip(at, 0, len(order) - 1)
        usable = inside & (sequence[at] == sequence) & known[at]
        return np.where(usable, np.abs(index[at] - index), np.inf)

    left, right = reach(before), reach(after)
    fill = ~known & (np.minimum(left, right) <= _MAX_GAP)
    if not fill.any():
        return position, sigma
    a, b = (np.clip(at, 0, len(order) - 1)[fill] for at in (before, after))
    left, right = left[fill], right[fill]
    one_sided = ~np.isfinite(left) | ~np.isfinite(right)
    share = np.where(np.isfinite(left), 0.0, 1.0)
    share[~one_sided] = left[~one_sided] / np.maximum(left + right, 1e-9)[~one_sided]
    start = np.where(np.isfinite(left), a, b)
    end = np.where(np.isfinite(right), b, a)
    there = order[fill]
    position[there] = (1 - share)[:, None] * position[order[start]] + share[:, None] * (
        position[order[end]]
    )
    step = _median_step(position[order], sequence)
    span = np.linalg.norm(position[order[start]] - position[order[end]], axis=1)
    doubt = np.where(one_sided, step * np.minimum(left, right), span / 2)
    sigma[there] = np.hypot(np.maximum(sigma[order[start]], sigma[order[end]]), doubt / 2)
    return position, sigma


def _median_step(position: Array, sequence: Indices) -> float:
    """Return the median distance from one photograph of a sequence to the next, in metres."""
    step = np.linalg.norm(np.diff(position, axis=0), axis=1)
    step = step[(np.diff(sequence) == 0) & np.isfinite(step)]
    return float(np.median(step)) if len(step) else 0.0


def _blunders(position: Array, sigma: Array, sequence: Indices) -> Bools:
    """Return which positions, ordered by sequence, are far from the median of four neighbours."""
    count = len(position)
    around = np.full((count, 4, 3), np.nan)
    for column, shift in enumerate((-2, -1, 1, 2)):
        at = np.arange(count) + shift
        inside = np.flatnonzero((at >= 0) & (at < count))
        inside = inside[sequence[at[inside]] == sequence[inside]]
        around[inside, column] = position[at[inside]]
    complete = np.isfinite(around).all(axis=(1, 2)) & np.isfinite(position[:, 0])
    middle = np.median(around[complete], axis=1)
    spread = np.linalg.norm(around[complete] - middle[:, None], axis=2).max(axis=1)
    off = np.linalg.norm(position[complete] - middle, axis=1)
    wrong = np.zeros(count, bool)
    wrong[complete] = off > GPS_SIGMAS * sigma[complete] + 2 * spread + _BLUNDER_M
    return wrong


def positions_by_partners(position: Array, sigma: Array, pairs: Pairs) -> tuple[Array, Array]:
    """Return positions and standard deviations with missing ones taken from partners.

    Of the positions of a photograph's partners that one is taken which the most inliers support:
    those of all partners within SCENE_M of it.
    """
    missing = ~np.isfinite(position[:, 0])
    if not missing.any() or missing.all():
        return position, sigma
    position, sigma = position.copy(), sigma.copy()
    to = np.concatenate([pairs.first, pairs.second])
    of = np.concatenate([pairs.second, pairs.first])
    weight = np.concatenate([pairs.inliers, pairs.inliers])
    usable = missing[to] & ~missing[of]
    order = np.lexsort((of[usable], to[usable]))
    to, of, weight = to[usable][order], of[usable][order], weight[usable][order]
    # Every two partners of one image are compared.
    starts = np.searchsorted(to, to, "left")
    ends = np.searchsorted(to, to, "right")
    row = np.repeat(np.arange(len(to)), ends - starts)
    other = np.arange(len(row)) - np.repeat(
        np.cumsum(ends - starts) - (ends - starts), ends - starts
    )
    other += starts[row]
    near = np.linalg.norm(position[of[row]] - position[of[other]], axis=1) <= SCENE_M
    support = np.bincount(row[near], weight[other[near]], len(to))
    best = np.lexsort((of, -support, to))
    images, where = np.unique(to[best], return_index=True)
    chosen = best[where]
    position[images] = position[of[chosen]]
    sigma[images] = np.hypot(sigma[of[chosen]], SCENE_M / 2)
    return position, sigma
