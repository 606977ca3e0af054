"""Descriptors of a database smoothed over neighbours in space.

The descriptor of each photograph is replaced by a weighted mean of its own and those of the
photographs taken beside it. What only one of them shows (a parked van, a gap in the trees, a tilt
of the camera) loses weight, what they have in common stays, and a query taken a little further on
or to the side matches better.

Turcot and Lowe, "Better matching with fewer features" (ICCV workshops 2009), and Arandjelovic and
Zisserman, "Three things everyone should know to improve object retrieval" (CVPR 2012), augment
images of a database by others that match them; here the neighbours are chosen by position.
docs/evaluation.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]

_REACH = 2.0  # sigmas
_NEIGHBOURS = 64  # the nearest; bounds the work where many photographs state one position
_SAME_WAY_DEG = 45.0
# Photographs taken at one position may have different headings. If a heading is unknown, the cosine
# of the descriptors decides: that of unrelated images is around 0, whitened or not.
_SAME_WAY_COSINE = 0.15
_NOTHING = 1e-3
_NUMBERS_AT_ONCE = 1 << 23


def smooth(
    descriptors: Matrix,
    positions: Floats,
    headings: Floats,
    sigma: float,
    first: int | None = None,
) -> Matrix:
    """The descriptors (N, D), each averaged with those of its neighbours, again of unit length.

    With `first`, only the first so many rows are smoothed and returned, (first, D); the others
    serve as neighbours.

    `descriptors` (N, D) are unit vectors; a zero row is an image without a descriptor and stays
    zero. `positions` (N, P) and `sigma` are in the same unit, metres or frames; a row that is not
    finite has no neighbours. `headings` (N,) are degrees, NaN where unknown.

    A neighbour at distance d has the weight exp(-d^2 / 2 sigma^2), up to two sigmas and among the
    64 nearest. The weight is multiplied by how surely both look the same way: 1 or 0 for headings
    within 45 degrees or not; if one is unknown, the cosine of the descriptors over 0.15, from 0 to
    1. Raises ValueError for a sigma that is not above 0.
    """
    if not sigma > 0:
        raise ValueError(f"a sigma is above 0, not {sigma}")
    smoothed = descriptors[:first].copy()
    placed = np.flatnonzero(descriptors.any(axis=1) & np.isfinite(positions).all(axis=1))
    if len(placed) < 2:
        return smoothed
    count = min(_NEIGHBOURS + 1, len(placed))
    tree = cKDTree(positions[placed])
    at_once = max(1, _NUMBERS_AT_ONCE // (count * descriptors.shape[1]))
    wanted = placed[placed < len(smoothed)]
    for start in range(0, len(wanted), at_once):
        own = wanted[start : start + at_once]
        apart, nearest_rows = tree.query(positions[own], count)
        # Photographs at one position come in any order: the query itself need not be the first.
        others = placed[nearest_rows]
        weights = np.exp(-((apart / sigma) ** 2) / 2)
        itself = others == own[:, None]
        itself[~itself.any(axis=1), -1] = True  # not among its neighbours: the last is one too many
        weights[(apart > _REACH * sigma) | itself] = 0.0
        theirs = descriptors[others]
        cosines = np.einsum("nkd,nd->nk", theirs, descriptors[own])
        weights *= _same_way(headings[own, None], headings[others], cosines)
        mixed = descriptors[own] + np.einsum("nk,nkd->nd", weights.astype(np.float32), theirs)
        length = np.linalg.norm(mixed, axis=1, keepdims=True)
        # A mean near zero has no direction: such a photograph keeps its own descriptor.
        smoothed[own] = np.where(length > _NOTHING, mixed / length.clip(_NOTHING), descriptors[own])
    return smoothed


def within_reach(positions: Floats, of: Floats, sigma: float) -> NDArray[np.bool_]:
    """(N,) whether each position (N, P) is within two sigmas of any position in `of` (M, P).

    Only these can be neighbours in `smooth`.
    """
    near = np.zeros(len(positions), bool)
    known = of[np.isfinite(of).all(axis=1)]
    placed = np.flatnonzero(np.isfinite(positions).all(axis=1))
    if len(known):
        apart, _ = cKDTree(known).query(positions[placed])
        near[placed[apart <= _REACH * sigma]] = True
    return near


class Placed(NamedTuple):
    """Descriptors (N, D), earth-centred metres (N, 3) and headings (N,); NaN where unknown."""

    descriptors: Matrix
    positions: Floats
    headings: Floats


def smooth_shard(own: Placed, around: Iterable[Placed], sigma: float) -> Matrix:
    """The descriptors of a shard, (N, D), smoothed with its own and those of shards around it.

    Of each shard around it, only the images within reach of one of its own stay in memory.
    """
    parts = [own]
    for other in around:
        near = within_reach(other.positions, own.positions, sigma)
        parts.append(Placed(other.descriptors[near], other.positions[near], other.headings[near]))
    descriptors, positions, headings = map(np.concatenate, zip(*parts, strict=True))
    return smooth(descriptors, positions, headings, sigma, first=len(own.descriptors))


def _same_way(ours: Floats, theirs: Floats, cosines: Matrix) -> Floats:
    """(n, k) weights from 0 to 1: how surely two photographs look the same way."""
    apart = np.abs((theirs - ours + 180.0) % 360.0 - 180.0)
    unknown = np.clip(cosines / _SAME_WAY_COSINE, 0.0, 1.0)
    return np.where(np.isnan(apart), unknown, (apart <= _SAME_WAY_DEG).astype(np.float64))
