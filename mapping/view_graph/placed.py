"""Whether the inliers of pairs lie where the depths that other pairs give their keypoints put them.

Along a street of equal houses the epipolar lines of a pair one house off are the true ones, and so
are those of one between photographs of which the second is taken for the first. Seen from the true
poses, the rays of its matches meet far behind the houses, in front of them, or nowhere.
"""

from __future__ import annotations

import numpy as np

from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.camera import MAX_ERROR_PX
from vladmap.mapping.view_graph.depths import Depths
from vladmap.mapping.view_graph.pairs import MatchedPairs

# The relative error of a depth, one sigma.
_DEPTH = 0.25
# A point lies where it should within so many standard deviations.
_SIGMAS = 2.0


def placed_inliers(
    pairs: MatchedPairs, depths: Depths, rotation: Array, translation: Array, error: Array,
    telling: Bools,
) -> tuple[Indices, Indices]:  # fmt: skip
    """Return how many inliers of each pair lie where other pairs put them, and of how many, (m,).

    Each inlier counts at both of its keypoints. The depth of a keypoint is that by the `telling`
    pair (m,) with most inliers that shares it, other than the pair itself: of photographs that take
    each house for the next, those beside each other have most inliers, and are right. From there
    the point is carried by `rotation` (m, 3, 3) and `translation` (m, 3), second_from_first in
    metres with errors of `error` (m,), and must lie on the ray of its match, before the camera.
    """
    depth = _depths_by_others(pairs, depths, telling)
    own, focal = pairs.pair, pairs.focal_px[pairs.pair]
    turn, moved = rotation[own], translation[own]
    back = np.swapaxes(turn, 1, 2)
    ways = (
        (depth[0], turn, moved, pairs.ray_first, pairs.ray_second),
        (depth[1], back, -np.einsum("kij,kj->ki", back, moved), pairs.ray_second, pairs.ray_first),
    )
    placed = known = np.zeros(len(pairs), np.int64)
    for far, turned, shift, start, end in ways:
        rows = np.flatnonzero(np.isfinite(far))
        towards = np.einsum("kij,kj->ki", turned[rows], start[rows])
        point = far[rows, None] * towards + shift[rows]
        ray = end[rows] / np.linalg.norm(end[rows], axis=1, keepdims=True)
        along = np.maximum((point * ray).sum(axis=1), 0.0)
        off = np.linalg.norm(point - along[:, None] * ray, axis=1)
        # An error of the depth moves the point across the ray as the two rays part.
        across = _DEPTH * far[rows] * np.linalg.norm(np.cross(towards, ray), axis=1)
        pixels = MAX_ERROR_PX * along / focal[rows]
        allowed = _SIGMAS * np.sqrt(error[own[rows]] ** 2 + across**2 + pixels**2)
        known = known + np.bincount(own[rows], minlength=len(pairs))
        placed = placed + np.bincount(own[rows[off <= allowed]], minlength=len(pairs))
    return placed, known


def _depths_by_others(pairs: MatchedPairs, depths: Depths, telling: Bools) -> tuple[Array, Array]:
    """The depths of both keypoints of each inlier by the best other pair, (k,), NaN without one."""
    used = depths.usable & telling[pairs.pair]
    key = np.concatenate([pairs.key_first[used], pairs.key_second[used]])
    pair = np.concatenate([pairs.pair[used], pairs.pair[used]])
    depth = np.concatenate([depths.first[used], depths.second[used]])
    order = np.lexsort((pair, -pairs.inliers[pair], key))
    key, pair, depth = key[order], pair[order], depth[order]
    keys, begin = np.unique(key, return_index=True)
    # The best pair of each keypoint, and the next one for the best pair itself.
    count = np.diff(np.append(begin, len(key)))
    second = np.where(count > 1, begin + 1, -1)
    found = []
    for wanted in (pairs.key_first, pairs.key_second):
        if len(keys) == 0:
            found.append(np.full(len(wanted), np.nan))
            continue
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        chosen = np.where(pair[begin[at]] == pairs.pair, second[at], begin[at])
        held = (keys[at] == wanted) & (chosen >= 0)
        found.append(np.where(held, depth[chosen], np.nan))
    return found[0], found[1]
