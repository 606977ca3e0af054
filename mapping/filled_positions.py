"""Where photographs lie whose GPS is missing or wrong: from their sequence, or their partners."""

from __future__ import annotations

import numpy as np

from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.photographs import Pairs, Photographs

# Distances are trusted where they are below this many standard deviations of both positions, and
# this many metres: photographs of one scene differ by as much. Beyond `SCENE_M` they still may be
# neighbours by so inexact a GPS, but their other partners must not speak against it.
GPS_SIGMAS = 4.0
SCENE_M = 25.0
# A position is filled in from its sequence over at most so many places.
_MAX_GAP = 10
# A photograph this far from where four neighbours of its drive have it has a wrong position.
_BLUNDER_M = 20.0


def fill_positions(photographs: Photographs) -> tuple[Array, Array]:
    """Positions and their sigma, blunders and what is missing filled in from the sequence."""
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
        """Places to the known one at `at` in the same sequence; infinite if there is none."""
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
    """The usual distance of one photograph to the next."""
    step = np.linalg.norm(np.diff(position, axis=0), axis=1)
    step = step[(np.diff(sequence) == 0) & np.isfinite(step)]
    return float(np.median(step)) if len(step) else 0.0


def _blunders(position: Array, sigma: Array, sequence: Indices) -> Bools:
    """Which positions of sequences, in order, lie off the four neighbours that agree."""
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
    """Positions with those still missing taken from where most inliers of the partners lie."""
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
    # All two partners of one image against each other.
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
