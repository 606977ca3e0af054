"""A database whose photographs know their neighbours.

The descriptor of each photograph becomes a weighted mean with those of the photographs beside it:
what a single one shows by chance (a parked van, a gap in the trees, its own tilt) fades, what the
place looks like stays, and a query from a little further on or aside finds more to agree with.

Turcot and Lowe, "Better matching with fewer features" (ICCV workshops 2009), and Arandjelovic and
Zisserman, "Three things everyone should know to improve object retrieval" (CVPR 2012), augment
images of a database by those that show the same; here their positions say which do. What it is
worth is measured in docs/evaluation.md.
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
# Photographs from one spot may look different ways. Where their headings are not known, their
# descriptors say: unrelated ones have cosines around 0, whitened or not.
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
    """The descriptors, each with those of its neighbours mixed in, again of unit length.

    With `first` only those of the first so many rows, (first, D); the others are but neighbours.

    `descriptors` (N, D) are unit vectors; zero rows were not described and stay zero.
    `positions` (N, P) and `sigma` are in one unit, metres or frames; a row that is not finite has
    no neighbours. `headings` (N,) are degrees, NaN where unknown.

    A neighbour at distance d weighs exp(-d^2 / 2 sigma^2), up to two sigmas and the 64 nearest. It
    counts if it looks the same way: within 45 degrees where both headings are known, else in
    proportion to the cosine of the two descriptors, fully from 0.15 on. Raises ValueError for a
    sigma that is not above 0.
    """
    if not sigma > 0:
        raise ValueError(f"a sigma is above 0, not {sigma}")
    smoothed = descriptors[:first].copy()
    placed = np.flatnonzero(descriptors.any(axis=1) & np.isfinite(positions).all(axis=1))
    if len(placed) < 2:
        return smoothed
    nearest = min(_NEIGHBOURS + 1, len(placed))
    tree = cKDTree(positions[placed])
    at_once = max(1, _NUMBERS_AT_ONCE // (nearest * descriptors.shape[1]))
    wanted = placed[placed < len(smoothed)]
    for start in range(0, len(wanted), at_once):
        own = wanted[start : start + at_once]
        apart, found = tree.query(positions[own], nearest)
        # Photographs of one position come in any order: the own one need not be the first.
        others = placed[found]
        weights = np.exp(-((apart / sigma) ** 2) / 2)
        itself = others == own[:, None]
        itself[~itself.any(axis=1), -1] = True  # its place is taken: the last is one too many
        weights[(apart > _REACH * sigma) | itself] = 0.0
        theirs = descriptors[others]
        cosines = np.einsum("nkd,nd->nk", theirs, descriptors[own])
        weights *= _same_way(headings[own, None], headings[others], cosines)
        mixed = descriptors[own] + np.einsum("nk,nkd->nd", weights.astype(np.float32), theirs)
        length = np.linalg.norm(mixed, axis=1, keepdims=True)
        # Opposites cancel out: such a photograph keeps its own.
        smoothed[own] = np.where(length > _NOTHING, mixed / length.clip(_NOTHING), descriptors[own])
    return smoothed


def within_reach(positions: Floats, of: Floats, sigma: float) -> NDArray[np.bool_]:
    """(N,) whether a position is near enough to any `of` those (M, P) to be mixed into its row."""
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

    Of each shard around only the images within reach of one of its own are held.
    """
    parts = [own]
    for other in around:
        near = within_reach(other.positions, own.positions, sigma)
        parts.append(Placed(other.descriptors[near], other.positions[near], other.headings[near]))
    descriptors, positions, headings = map(np.concatenate, zip(*parts, strict=True))
    return smooth(descriptors, positions, headings, sigma, first=len(own.descriptors))


def _same_way(ours: Floats, theirs: Floats, cosines: Matrix) -> Floats:
    """(n, k) from 0 to 1: whether photographs look the same way."""
    apart = np.abs((theirs - ours + 180.0) % 360.0 - 180.0)
    unknown = np.clip(cosines / _SAME_WAY_COSINE, 0.0, 1.0)
    return np.where(np.isnan(apart), unknown, (apart <= _SAME_WAY_DEG).astype(np.float64))
