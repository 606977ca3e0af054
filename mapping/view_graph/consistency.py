"""Which loops agree with each other: pairwise consistent measurement set maximisation (PCM).

A loop says where one stretch of a drive lies from another. Two loops between the same two stretches
are consistent if the cycle loop, odometry, loop back, odometry back closes within its covariance;
the largest set of loops of which each two are consistent is believed (Mangelson et al., ICRA 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np
from scipy.spatial.transform import Rotation

from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.view_graph.odometry import Odometry

# The errors of a loop, one sigma: radians, metres, and metres for each metre of its length.
_TURN = np.radians(2.0)
_PLACE_M = 0.5
_PLACE_SHARE = 0.1
# What odometry drifts, one sigma: radians for each square root of a metre, metres for each metre.
_TURN_DRIFT = np.radians(0.3)
_PLACE_DRIFT = 0.05
# A cycle closes within so many standard deviations.
_CLOSED = 3.0
# Up to so many loops the largest clique is found exactly.
_EXACT = 30
_SEEDS = 10


@dataclass(frozen=True)
class LoopSets:
    """What k loops say of each other.

    `group` (k,) numbers the two stretches that a loop joins, -1 where its length or the odometry of
    an end is unknown. `agreeing` (k,) is how many other loops of the group are consistent with it,
    `chosen` (k,) whether it is in the largest set of them, and `largest` (k,) the size of that set.
    `odometry_sigmas` (k,) is how far the cycle of a loop with the odometry between its own ends is
    from closing, in standard deviations; NaN where no odometry joins them.
    """

    group: Indices
    agreeing: Indices
    chosen: Bools
    largest: Indices
    odometry_sigmas: Array


def loop_sets(
    odometry: Odometry, stretch: Indices, first: Indices, second: Indices, pose: Array
) -> LoopSets:
    """Test loops against each other and against the odometry.

    `stretch` (n,) is the stretch of a drive of each image; `first` and `second` (k,) are the ends
    of the loops, `pose` (k, 4, 4) second_from_first in metres, NaN where unknown. Memory grows with
    the square of the loops between two stretches.
    """
    usable = np.isfinite(pose[:, 0, 0])
    usable &= (odometry.piece[first] >= 0) & (odometry.piece[second] >= 0)
    # From the lower stretch to the upper one, whichever end came first.
    turned = stretch[first] > stretch[second]
    start, end = np.where(turned, second, first), np.where(turned, first, second)
    there = pose.copy()
    there[turned & usable] = np.linalg.inv(pose[turned & usable])
    count = len(first)
    result = LoopSets(
        np.full(count, -1, np.int64), np.zeros(count, np.int64), np.zeros(count, bool),
        np.zeros(count, np.int64), _against_odometry(odometry, start, end, there, usable),
    )  # fmt: skip
    rows = np.flatnonzero(usable)
    if len(rows) == 0:
        return result
    key = np.stack(
        [odometry.piece[start], stretch[start], odometry.piece[end], stretch[end]], axis=1
    )
    _, group = np.unique(key[rows], axis=0, return_inverse=True)
    result.group[rows] = group.reshape(-1)
    order = rows[np.argsort(result.group[rows], kind="stable")]
    for members in np.split(order, np.flatnonzero(np.diff(result.group[order])) + 1):
        agree = _consistent(odometry, start[members], end[members], there[members])
        chosen = largest_clique(agree)
        result.agreeing[members] = agree.sum(axis=1)
        result.chosen[members] = chosen
        result.largest[members] = chosen.sum()
    return result


def _against_odometry(
    odometry: Odometry, start: Indices, end: Indices, there: Array, usable: Bools
) -> Array:
    sigmas = np.full(len(start), np.nan)
    rows = np.flatnonzero(usable & (odometry.piece[start] == odometry.piece[end]))
    if len(rows) == 0:
        return sigmas
    one, other = start[rows], end[rows]
    cycle = there[rows] @ odometry.pose[one] @ np.linalg.inv(odometry.pose[other])
    way = np.abs(odometry.travelled[one] - odometry.travelled[other])
    turn = np.hypot(_TURN, _TURN_DRIFT * np.sqrt(way))
    place = np.hypot(_loop_error(there[rows]), _PLACE_DRIFT * way)
    # A turn at the beginning of the way moves its end: half of the way is the usual lever.
    place = np.hypot(place, 0.5 * _TURN_DRIFT * way**1.5)
    sigmas[rows] = np.maximum(
        Rotation.from_matrix(cycle[:, :3, :3]).magnitude() / turn,
        np.linalg.norm(cycle[:, :3, 3], axis=1) / place,
    )
    return sigmas


def _loop_error(pose: Array) -> Array:
    return np.asarray(np.hypot(_PLACE_M, _PLACE_SHARE * np.linalg.norm(pose[:, :3, 3], axis=1)))


def _consistent(odometry: Odometry, start: Indices, end: Indices, there: Array) -> Bools:
    """Which two of k loops between the same stretches are consistent, (k, k); none with itself."""
    # Each loop says how the piece of its end lies from the piece of its start.
    carried = np.linalg.inv(odometry.pose[end]) @ there @ odometry.pose[start]
    turn, shift = carried[:, :3, :3], carried[:, :3, 3]
    centre = odometry.centre[start]
    middle = (centre[:, None] + centre[None]) / 2
    moved = np.einsum("iab,ijb->ija", turn, middle) + shift[:, None]
    apart = np.linalg.norm(moved - np.swapaxes(moved, 0, 1), axis=2)
    trace = np.einsum("iab,jab->ij", turn, turn)
    angle = np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0))
    way = sum(
        np.abs(odometry.travelled[ends][:, None] - odometry.travelled[ends][None])
        for ends in (start, end)
    )
    own = _loop_error(there)
    place = np.sqrt(own[:, None] ** 2 + own[None] ** 2 + (_PLACE_DRIFT * way) ** 2)
    place = np.hypot(place, 0.5 * _TURN_DRIFT * way**1.5)
    angle_error = np.sqrt(2 * _TURN**2 + _TURN_DRIFT**2 * way)
    agree = (apart <= _CLOSED * place) & (angle <= _CLOSED * angle_error)
    np.fill_diagonal(agree, False)
    return np.asarray(agree & agree.T, bool)


def largest_clique(agree: Bools) -> Bools:
    """Which of k nodes are in the largest clique of a symmetric graph (k, k), (k,).

    Exact for up to thirty nodes; beyond, the largest of those that grow greedily from the ten nodes
    of the highest degree. Ties go to the lower rows.
    """
    count = len(agree)
    chosen = np.zeros(count, bool)
    if count <= _EXACT:
        graph = nx.from_numpy_array(agree.astype(np.int64))
        cliques = (sorted(clique) for clique in nx.find_cliques(graph))
        best = min(cliques, key=lambda clique: (-len(clique), clique))
        chosen[best] = True
        return chosen
    degree = agree.sum(axis=1)
    for seed in np.lexsort((np.arange(count), -degree))[:_SEEDS].tolist():
        grown = np.zeros(count, bool)
        grown[seed] = True
        candidates = agree[seed].copy()
        while candidates.any():
            inside = np.where(candidates, agree[:, candidates].sum(axis=1), -1)
            following = int(np.argmax(inside))
            grown[following] = True
            candidates &= agree[following]
        if grown.sum() > chosen.sum():
            chosen = grown
    return chosen
