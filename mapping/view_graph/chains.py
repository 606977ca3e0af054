"""Drives as chains: which pairs of a drive contradict the shorter ones between their ends.

In a row of equal houses two photographs of a drive, some houses apart, match each house to the next
one. Their rotation and epipolar lines are the true ones, as the drive follows the street, and so is
their length in units of the houses' depth: only that it is shorter or longer by a house is wrong.
Many such pairs agree with each other, and outvote the true ones. Photographs beside each other in
the drive do not: the same houses are in both pictures, with all that stands before them, and match
best to themselves. So a drive is built from its shortest pairs up, and a pair must agree with what
the shorter ones say of the way between its ends.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix

from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.graph import connected_components
from vladmap.mapping.symmetric import solve_symmetric
from vladmap.mapping.view_graph.frames import Baselines, baseline_error_m

# Pairs so many places apart, or fewer, are added at a time.
_REACHES = (2, 4, 8, 16, 32)
# What a chain of shorter pairs drifts, one sigma: metres for each metre of the way.
_DRIFT = 0.05
# A pair contradicts the chain from so many standard deviations on.
_CONTRADICTS = 4.0
# Geman-McClure scales of the adjustment of a chain, in standard deviations of a baseline.
_WIDTHS = (20.0, 10.0, 5.0, 3.0, 2.0)


def against_chains(vectors: Baselines, sequence: Indices, index: Indices) -> Bools:
    """Return which of m pairs contradict the chain of shorter pairs of their drive, (m,).

    `vectors` are baselines in metres; `sequence` (n,) is the drive of each image, -1 for none, and
    `index` (n,) its place in it. A pair of two drives, of images more than 32 places apart, or of
    two that shorter pairs do not connect contradicts nothing.
    """
    images, first, second = len(sequence), vectors.first, vectors.second
    same = (sequence[first] == sequence[second]) & (sequence[first] >= 0)
    apart = np.where(same, np.abs(index[first] - index[second]), _REACHES[-1] + 1)
    order = np.lexsort((index, sequence))
    against = np.zeros(len(first), bool)
    place, piece = np.zeros((images, 3)), np.arange(images)
    before = 0
    for reach in _REACHES:
        added = np.flatnonzero((apart > before) & (apart <= reach))
        off, sigma = _off(vectors, added, place, _travelled(place, piece, order))
        known = piece[first[added]] == piece[second[added]]
        against[added] = known & (off > _CONTRADICTS * sigma)
        used = np.flatnonzero((apart <= reach) & ~against)
        place = _chained(vectors, used, place, before == 0 or not known.all())
        piece = connected_components(images, first[used], second[used])
        before = reach
    return against


def _off(vectors: Baselines, rows: Indices, place: Array, travelled: Array) -> tuple[Array, Array]:
    """How far the ends of some pairs are from their baselines, and the standard deviation."""
    first, second, vector = vectors.first[rows], vectors.second[rows], vectors.vector[rows]
    apart = place[second] - place[first]
    length = np.maximum(np.linalg.norm(vector, axis=1), np.linalg.norm(apart, axis=1))
    way = np.abs(travelled[second] - travelled[first])
    return np.linalg.norm(apart - vector, axis=1), np.hypot(baseline_error_m(length), _DRIFT * way)


def _travelled(place: Array, piece: Indices, order: Indices) -> Array:
    """The metres along the drives, in their `order`, to each image, (n,)."""
    step = np.linalg.norm(np.diff(place[order], axis=0), axis=1)
    step = np.where(np.diff(piece[order]) == 0, step, 0.0)
    travelled = np.zeros(len(order))
    travelled[order] = np.concatenate([[0.0], np.cumsum(step)])
    return travelled


def _chained(vectors: Baselines, rows: Indices, place: Array, anew: bool) -> Array:
    """The positions (n, 3) of the least-squares fit to some pairs, wrong ones down-weighted.

    It starts at `place`, or `anew` from all pairs alike (graduated non-convexity).
    """
    images = len(place)
    first, second, vector = vectors.first[rows], vectors.second[rows], vectors.vector[rows]
    error = baseline_error_m(np.linalg.norm(vector, axis=1))
    every, place = np.arange(images), place.copy()
    for number, width in enumerate(_WIDTHS if anew else _WIDTHS[-2:]):
        weight = error**-2.0
        if number or not anew:
            off = np.linalg.norm(place[second] - place[first] - vector, axis=1)
            weight = weight / (1.0 + (off / (width * error)) ** 2) ** 2
        diagonal = np.bincount(first, weight, images) + np.bincount(second, weight, images) + 1e-9
        ends = (
            np.concatenate([every, first, second]),
            np.concatenate([every, second, first]),
        )
        normal = coo_matrix((np.concatenate([diagonal, -weight, -weight]), ends), (images, images))
        right = np.zeros((images, 3))
        np.add.at(right, second, weight[:, None] * vector)
        np.add.at(right, first, -weight[:, None] * vector)
        place = solve_symmetric(normal.tocsc(), right).reshape(images, 3)
    return place
