"""Depths of a pair's inliers, and what the depths of shared keypoints say of two pairs' lengths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.view_graph.pairs import MatchedPairs

# The depth of a point whose rays meet at a smaller angle is noise.
_MIN_ANGLE = np.radians(0.7)
# At each keypoint a pair is compared with the so many next ones, so that a keypoint that a hundred
# pairs share does not give thousands of comparisons.
_NEXT_PAIRS = 6


@dataclass(frozen=True)
class Depths:
    """Depths of k inliers in the two cameras of their pair, as multiples of its baseline.

    `first` and `second` (k,); `usable` (k,) says which points lie before both cameras, with rays
    that meet at an angle that gives a depth.
    """

    first: Array
    second: Array
    usable: Bools


@dataclass(frozen=True)
class DepthRatios:
    """c comparisons of two pairs that share keypoints.

    `one` and `other` (c,) are the pairs; `log_ratio` (c,) is the median, over their shared
    keypoints, of log(depth by `one` / depth by `other`); `spread` (c,) its interquartile range;
    `count` (c,) the number of keypoints.
    """

    one: Indices
    other: Indices
    log_ratio: Array
    spread: Array
    count: Indices


def pair_depths(pairs: MatchedPairs, rotation: Array, translation: Array) -> Depths:
    """Triangulate the inliers of each pair, least squares along both rays.

    `rotation` (m, 3, 3) and `translation` (m, 3) are second_from_first; depths have the unit of the
    translation.
    """
    turned = np.einsum("kij,kj->ki", rotation[pairs.pair], pairs.ray_first)
    moved = translation[pairs.pair]
    across = np.cross(pairs.ray_second, turned)
    square = np.maximum((across * across).sum(axis=1), 1e-15)
    first = -(across * np.cross(pairs.ray_second, moved)).sum(axis=1) / square
    second = -(across * np.cross(turned, moved)).sum(axis=1) / square
    lengths = np.linalg.norm(pairs.ray_first, axis=1) * np.linalg.norm(pairs.ray_second, axis=1)
    sine = np.sqrt(square) / lengths
    usable = (first > 0) & (second > 0) & (sine > np.sin(_MIN_ANGLE))
    return Depths(first, second, np.asarray(usable, np.bool_))


def depth_ratios(pairs: MatchedPairs, depths: Depths, least: int) -> DepthRatios:
    """Compare the depths that pairs give the keypoints that they share.

    Two pairs are compared where they share at least `least` keypoints. Where both are true, the
    ratio of depths is that of their baselines' inverse lengths.
    """
    used = depths.usable
    pair = np.concatenate([pairs.pair[used], pairs.pair[used]])
    key = np.concatenate([pairs.key_first[used], pairs.key_second[used]])
    depth = np.log(np.concatenate([depths.first[used], depths.second[used]]))
    order = np.lexsort((pair, key))
    pair, key, depth = pair[order], key[order], depth[order]
    combined, difference = [np.zeros(0, np.int64)], [np.zeros(0)]
    for step in range(1, _NEXT_PAIRS + 1):
        same = np.flatnonzero(key[step:] == key[:-step])
        combined.append(pair[same] * len(pairs) + pair[same + step])
        difference.append(depth[same] - depth[same + step])
    both, ratio = np.concatenate(combined), np.concatenate(difference)
    order = np.lexsort((ratio, both))
    both, ratio = both[order], ratio[order]
    distinct, start, count = np.unique(both, return_index=True, return_counts=True)
    enough = count >= least
    distinct, start, count = distinct[enough], start[enough], count[enough].astype(np.int64)
    middle = (ratio[start + (count - 1) // 2] + ratio[start + count // 2]) / 2
    spread = ratio[start + 3 * count // 4] - ratio[start + count // 4]
    return DepthRatios(distinct // len(pairs), distinct % len(pairs), middle, spread, count)
