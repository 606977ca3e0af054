"""Relative lengths of the baselines of pairs, from the depths of the keypoints that they share."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix

from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.graph import connected_components
from vladmap.mapping.symmetric import solve_symmetric
from vladmap.mapping.view_graph.depths import DepthRatios

# The scale of the Geman-McClure weights shrinks from and to so many standard deviations.
_WIDTHS = np.geomspace(10.0, 1.5, 8)
# The least standard deviation of the logarithm of a ratio.
_FLOOR = 0.05


def relative_lengths(pairs: int, ratios: DepthRatios) -> tuple[Array, Indices]:
    """Return the logarithm of each pair's length (m,), and its component (m,).

    A two-view geometry gives the direction of its baseline and not its length. Two pairs that share
    keypoints give them depths in units of their own lengths, so their ratio is the inverse ratio of
    the lengths. The logarithms of the lengths are the least-squares solution of all ratios, wrong
    ones down-weighted by graduated non-convexity (Yang et al., RA-L 2020). Lengths of
    one component compare, those of two do not; a pair that shares keypoints with no other is a
    component of its own.
    """
    one, other = ratios.one, ratios.other
    sigma = _FLOOR + ratios.spread / 1.35 / np.sqrt(np.maximum(ratios.count, 1))
    weight = sigma**-2.0
    log_length = np.zeros(pairs)
    every = np.arange(pairs)
    for width in _WIDTHS:
        # At one keypoint: length_one * depth_one = length_other * depth_other.
        diagonal = np.bincount(one, weight, pairs) + np.bincount(other, weight, pairs) + 1e-6
        normal = coo_matrix(
            (
                np.concatenate([diagonal, -weight, -weight]),
                (np.concatenate([every, one, other]), np.concatenate([every, other, one])),
            ),
            (pairs, pairs),
        ).tocsc()
        pull = weight * ratios.log_ratio
        right = np.bincount(other, pull, pairs) - np.bincount(one, pull, pairs)
        log_length = solve_symmetric(normal, right).reshape(pairs)
        residual = (log_length[other] - log_length[one] - ratios.log_ratio) / sigma
        weight = sigma**-2.0 / (1.0 + (residual / width) ** 2) ** 2
    return log_length, connected_components(pairs, one, other)
