"""The offset of GPS that each stretch of a drive shares, estimated from verified pairs."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve

from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.filled_positions import SCENE_M
from vladmap.mapping.photographs import (
    Pairs,
    Photographs,
    are_close_in_sequence,
    stretches,
)

MIN_DISTANCE_M = 10.0
"""Photographs of one scene may lie so far apart, however exact their positions are."""

MAX_OFFSET_M = 30.0
"""The largest offset that GPS is assumed to have."""

# The offset of a stretch has a normal prior with
# this standard deviation, in metres; its difference from that of the stretch before has this one.
_OFFSET_SIGMA_M = 10.0
_OFFSET_STEP_M = 5.0
_ROUNDS = 12
# The errors of pairs between the same two stretches are correlated: together they weigh no more
# than so many independent pairs.
_PAIRS_THAT_COUNT = 10.0


def gps_offsets(photographs: Photographs, pairs: Pairs, position: Array, sigma: Array) -> Array:
    """Return the (n, 3) offset of GPS at each photograph, the same along a stretch.

    The offsets minimise the distances of the photographs of each pair, under priors that keep every
    offset small and that of a stretch close to that of the stretch before. Pairs further apart than
    an offset and a scene allow, and pairs close in a sequence, take no part. Wrong pairs are down-
    weighted by graduated non-convexity (Yang et al., RA-L 2020): the scale of the Geman-McClure
    weights shrinks over twelve rounds.
    """
    count = len(position)
    stretch, following = _stretches(photographs, position)
    groups = int(stretch.max(initial=-1)) + 1
    nothing = np.zeros((count, 3))
    if groups < 2:
        return nothing
    a, b = stretch[pairs.first], stretch[pairs.second]
    apart = position[pairs.first] - position[pairs.second]
    length = np.linalg.norm(apart, axis=1)
    usable = (a >= 0) & (b >= 0) & (a != b) & (length <= MAX_OFFSET_M + SCENE_M)
    usable &= ~are_close_in_sequence(photographs, pairs)
    if not usable.any():
        return nothing
    a, b, apart = a[usable], b[usable], apart[usable]
    error = np.hypot(sigma[pairs.first[usable]], sigma[pairs.second[usable]])
    scale = np.hypot(error, MIN_DISTANCE_M)
    low, high = np.minimum(a, b), np.maximum(a, b)
    _, together = np.unique(low * groups + high, return_inverse=True)

    offset = np.zeros((groups, 3))
    for width in np.geomspace(MAX_OFFSET_M, 1.0, _ROUNDS):
        reach = np.maximum(scale, width)
        residual = np.linalg.norm(apart - offset[a] + offset[b], axis=1)
        robust = 1.0 / (1.0 + (residual / reach) ** 2) ** 2
        total = np.bincount(together, robust)
        weight = robust / scale**2 * np.minimum(1.0, _PAIRS_THAT_COUNT / total)[together]
        step_a, step_b = following
        tie = np.full(len(step_a), _OFFSET_STEP_M**-2)
        rows, columns = np.concatenate([a, step_a]), np.concatenate([b, step_b])
        strength = np.concatenate([weight, tie])
        target = np.concatenate([apart, np.zeros((len(step_a), 3))])
        diagonal = np.bincount(rows, strength, groups) + np.bincount(columns, strength, groups)
        normal = coo_matrix(
            (
                np.concatenate([diagonal + _OFFSET_SIGMA_M**-2, -strength, -strength]),
                (
                    np.concatenate([np.arange(groups), rows, columns]),
                    np.concatenate([np.arange(groups), columns, rows]),
                ),
            ),
            (groups, groups),
        ).tocsc()
        right = np.zeros((groups, 3))
        np.add.at(right, rows, strength[:, None] * target)
        np.add.at(right, columns, -strength[:, None] * target)
        offset = np.asarray(spsolve(normal, right)).reshape(groups, 3)
    there = stretch >= 0
    result = nothing
    result[there] = offset[stretch[there]]
    return result


def _stretches(
    photographs: Photographs, position: Array
) -> tuple[Indices, tuple[Indices, Indices]]:
    """Return the stretch of each photograph, -1 for none, and pairs of consecutive stretches."""
    stretch = np.full(len(position), -1, np.int64)
    known = np.flatnonzero((photographs.sequence >= 0) & np.isfinite(position[:, 0]))
    stretch[known], drive = stretches(photographs.sequence[known], photographs.index[known])
    follows = np.flatnonzero(np.diff(drive) == 0)
    return stretch, (follows, follows + 1)
