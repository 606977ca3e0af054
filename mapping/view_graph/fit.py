"""Whether the inliers of each pair fit the poses that the whole collection gives its images.

A pair of two facades that look alike has a two-view geometry as good as any. It is the wrong one:
the poses of its images, which hundreds of other pairs hold, put the two elsewhere, and seen from
there its inliers lie off their epipolar lines, or at depths where nothing else is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.camera import MAX_ERROR_PX
from vladmap.mapping.view_graph.depths import Depths, depth_ratios, pair_depths
from vladmap.mapping.view_graph.pairs import MatchedPairs
from vladmap.mapping.view_graph.placed import placed_inliers

# The errors of the relative pose that the graph gives, one sigma: degrees, metres, and metres for
# each metre of the distance.
_TURN = np.radians(1.5)
_PLACE_M = 0.4
_PLACE_SHARE = 0.05
# At most so many inliers of a pair refine its pose, evenly spaced.
_MOST = 128
# Scales of the Geman-McClure weights of one refinement, in pixels.
_WIDTHS_PX = (60.0, 40.0, 25.0, 16.0, 10.0, 6.0, 4.0, 4.0)
_LEAST_SIGMA_PX = 2.0
# Two pairs agree at their shared keypoints if their depths differ by less than this logarithm, and
# what the errors of their lengths explain. A length of a larger relative error says nothing.
_DEPTH = 0.35
_MAX_DOUBT = 0.3
_MIN_SHARED_KEYPOINTS = 5
_ROUNDS = 6
_STRONG = 150.0
# The share of its inliers that lie where other pairs put them is known from so many on.
_MIN_PLACED = 5
_UNKNOWN = 0.5
# The model of a true pair: see PairFit.probability.
_LOGISTIC = np.array([-0.44, 0.69, 4.13, 4.44, 0.88, -0.49, -1.14])
_MANY = 10.0
_FAR_M = 80.0


@dataclass(frozen=True)
class PairFit:
    """How m pairs fit the poses of a pose graph.

    `rotation` (m, 3, 3) and `translation` (m, 3), second_from_first in metres, are the graph's
    after refinement by the pair's own inliers, within the error of the graph. `share` (m,) is the
    share of its inliers within 4 pixels of the epipolar lines of that pose. `agreement` (m,), from
    0 to 1, is the share of other pairs' evidence that agrees with the depths of its keypoints, and
    `compared` (m,) how many pairs that is of. `placed` (m,) is the share of its inliers that lie
    where the depths by other pairs put them, a half where those hardly know any. `distance` (m,) is
    that of the images in the graph, in metres.
    """

    rotation: Array
    translation: Array
    share: Array
    agreement: Array
    compared: Indices
    placed: Array
    distance: Array

    def probability(self, inliers: Indices) -> Array:
        """The probability (m,) that both images of a pair see the same surface.

        A logistic model of the fit, the number of inliers and the distance. Both the epipolar lines
        and the depths must fit: their shares count together. A pair with many inliers from far
        apart is the less likely to be true: facades that look alike match whole, while truly shared
        surfaces shrink with distance. The coefficients are the maximum likelihood on the pairs of
        the sample city of 600 photographs, of which those that are a house off count as false
        (benchmarks/judging.py --fit, which finds them to within 0.2, the constant to 0.5).
        """
        return np.asarray(1.0 / (1.0 + np.exp(-_LOGISTIC @ logistic_features(self, inliers))))


def logistic_features(fit: PairFit, inliers: Indices) -> Array:
    """What the probability of a pair is computed from, (7, m): see PairFit.probability."""
    return np.stack(
        [
            np.ones(len(inliers)),
            fit.share,
            fit.share * fit.placed,
            fit.placed,
            fit.agreement * np.minimum(fit.compared, _MANY) / _MANY,
            np.log(np.maximum(inliers, 1)),
            np.minimum(fit.distance, _FAR_M) / 20.0,
        ]
    )


def fit_pairs(pairs: MatchedPairs, rotation: Array, position: Array) -> PairFit:
    """Fit pairs to poses: `rotation` (n, 3, 3) camera_from_world, `position` (n, 3) in metres.

    All images of the pairs must have a pose. All pairs are refined together, a few array operations
    for each step of a robust Gauss-Newton on their Sampson errors.
    """
    distance = np.linalg.norm(position[pairs.second] - position[pairs.first], axis=1)
    error = _PLACE_M + _PLACE_SHARE * distance
    turn, translation = _refined(pairs, rotation, position, error)
    share = share_within(pairs, turn, translation)
    depths = pair_depths(pairs, turn, translation)
    agreement, compared = _agreement(pairs, depths, translation, error, share)
    telling = (_doubt(error, translation) <= _MAX_DOUBT) & (share > 0.5)
    good, known = placed_inliers(pairs, depths, turn, translation, error, telling)
    placed = np.where(known >= _MIN_PLACED, good / np.maximum(known, 1), _UNKNOWN)
    return PairFit(turn, translation, share, agreement, compared, placed, distance)


def _doubt(error: Array, translation: Array) -> Array:
    """The relative error of the lengths of baselines."""
    return np.asarray(error / np.maximum(np.linalg.norm(translation, axis=1), 1e-6))


def _refined(
    pairs: MatchedPairs, rotation: Array, position: Array, error: Array
) -> tuple[Array, Array]:
    first, second, count = pairs.first, pairs.second, len(pairs)
    turn = np.einsum("mij,mkj->mik", rotation[second], rotation[first])
    start = np.einsum("mij,mj->mi", rotation[second], position[first] - position[second])
    moved, turned = start.copy(), np.zeros((count, 3))
    begin = np.searchsorted(pairs.pair, np.arange(count))
    place = np.arange(len(pairs.pair)) - begin[pairs.pair]
    every = np.maximum(1, -(-pairs.inliers // _MOST))
    taken = np.flatnonzero(place % every[pairs.pair] == 0)
    pair, one, other = pairs.pair[taken], pairs.ray_first[taken], pairs.ray_second[taken]
    prior = np.concatenate(
        [np.full((count, 3), _TURN**-2.0), np.repeat(error[:, None] ** -2.0, 3, axis=1)], axis=1
    )
    diagonal = np.arange(6)
    for width in _WIDTHS_PX:
        carried, shift = np.einsum("kij,kj->ki", turn[pair], one), moved[pair]
        value, slope = _epipolar(pairs.focal_px[pair], turn[pair], shift, carried, other)
        residual = value * slope
        weight = 1.0 / (1.0 + (residual / width) ** 2) ** 2
        weight /= max(_LEAST_SIGMA_PX, width / 3) ** 2
        jacobian = slope[:, None] * np.concatenate(
            [np.cross(carried, np.cross(other, shift)), np.cross(carried, other)], axis=1
        )
        normal = np.zeros((count, 6, 6))
        for row in range(6):
            for column in range(row, 6):
                product = weight * jacobian[:, row] * jacobian[:, column]
                total = np.bincount(pair, product, count)
                normal[:, row, column] = normal[:, column, row] = total
        gradient = np.stack(
            [np.bincount(pair, weight * residual * jacobian[:, k], count) for k in range(6)], 1
        )
        normal[:, diagonal, diagonal] += prior
        gradient += prior * np.concatenate([turned, moved - start], axis=1)
        step = -np.linalg.solve(normal, gradient[:, :, None])[:, :, 0]
        turn = Rotation.from_rotvec(step[:, :3]).as_matrix() @ turn
        turned, moved = turned + step[:, :3], moved + step[:, 3:]
    return turn, moved


def _epipolar(
    focal: Array, turn: Array, shift: Array, carried: Array, other: Array
) -> tuple[Array, Array]:
    """The epipolar product of each match, and what makes of it a Sampson error in pixels."""
    line = np.cross(shift, carried)
    value = (other * line).sum(axis=1)
    back = np.einsum("kji,kj->ki", turn, np.cross(other, shift))
    size = np.sqrt((line[:, :2] ** 2).sum(axis=1) + (back[:, :2] ** 2).sum(axis=1))
    return value, focal / np.maximum(size, 1e-12)


def share_within(pairs: MatchedPairs, turn: Array, moved: Array) -> Array:
    """PairFit.share of pairs at relative poses that are taken as they are."""
    pair = pairs.pair
    carried = np.einsum("kij,kj->ki", turn[pair], pairs.ray_first)
    line = np.cross(moved[pair], carried)
    value = np.abs((pairs.ray_second * line).sum(axis=1))
    back = np.einsum("kji,kj->ki", turn[pair], np.cross(pairs.ray_second, moved[pair]))
    size = np.minimum(np.hypot(line[:, 0], line[:, 1]), np.hypot(back[:, 0], back[:, 1]))
    near = pairs.focal_px[pair] * value <= MAX_ERROR_PX * np.maximum(size, 1e-12)
    return np.bincount(pair, near, len(pairs)) / np.maximum(pairs.inliers, 1)


def _agreement(
    pairs: MatchedPairs, depths: Depths, translation: Array, error: Array, share: Array
) -> tuple[Array, Indices]:
    """The share of other pairs' evidence that agrees with each pair's depths, and of how many.

    Evidence weighs by the other pair's own fit and agreement, found together in some rounds.
    """
    ratios = depth_ratios(pairs, depths, _MIN_SHARED_KEYPOINTS)
    doubt = _doubt(error, translation)
    # The depths of two photographs at nearly one place say nothing.
    telling = np.maximum(doubt[ratios.one], doubt[ratios.other]) <= _MAX_DOUBT
    one, other, count = ratios.one[telling], ratios.other[telling], len(pairs)
    allowed = _DEPTH + np.hypot(doubt[one], doubt[other])
    agree = np.abs(ratios.log_ratio[telling]) < allowed
    weight = np.sqrt(ratios.count[telling])
    strength = share * np.minimum(pairs.inliers, _STRONG)
    agreement = np.ones(count)
    for _ in range(_ROUNDS):
        voice = strength * agreement**2
        total = np.bincount(one, voice[other] * weight, count)
        total += np.bincount(other, voice[one] * weight, count)
        held = np.bincount(one, voice[other] * weight * agree, count)
        held += np.bincount(other, voice[one] * weight * agree, count)
        agreement = np.where(total > 0, held / np.maximum(total, 1e-12), 0.5)
    return agreement, np.bincount(np.concatenate([one, other]), minlength=count)
