"""Georegistration: the similarity from a model's frame to an east-north-up frame, from noisy GPS.

It minimises the distances of all images from their GPS positions, weighted by the stated accuracies
and robustly. The GPS positions of a straight street do not determine the model's rotation about the
street, and its slope only weakly. There the assumption decides that cameras are held upright.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, fdtri

from vladmap.features.colmap import pycolmap
from vladmap.mapping.arrays import Array
from vladmap.mapping.colmap import SEED
from vladmap.mapping.gps import GpsPositions
from vladmap.mapping.rotations import cross_matrices, rotation_matrix, rotation_to_z
from vladmap.mapping.upright import CAUCHY_SIGMAS, vertical_of

# The vertical error of GPS, divided by its horizontal error.
VERTICAL_FACTOR = 2.0
MIN_POSITIONS = 3
_INLIER_SIGMAS = 3.0
_NO_NOISE = 0.95
_MAX_HYPOTHESES = 2000
_MAX_ITERATIONS = 100


@dataclass(frozen=True)
class Similarity:
    """target = scale * rotation @ source + translation."""

    scale: float
    rotation: Array
    translation: Array

    def apply(self, points: Array) -> Array:
        """Return the (n, 3) points carried over."""
        return self.scale * points @ self.rotation.T + self.translation

    def after(self, first: Similarity) -> Similarity:
        """Return the similarity that is `first` and then this one."""
        return Similarity(
            self.scale * first.scale,
            self.rotation @ first.rotation,
            self.apply(first.translation[None])[0],
        )

    def inverse(self) -> Similarity:
        """Return the similarity back."""
        back = self.rotation.T / self.scale
        return Similarity(1.0 / self.scale, self.rotation.T, -back @ self.translation)

    def to_colmap(self) -> pycolmap.Sim3d:
        """Return COLMAP's form."""
        return pycolmap.Sim3d(self.scale, pycolmap.Rotation3d(self.rotation), self.translation)


@dataclass(frozen=True)
class Georegistration:
    """A similarity from a model's frame to an east-north-up frame, and its GPS residuals.

    Residuals are distances from GPS in metres, each (n,): `horizontal` is NaN for an image without
    a position; `spatial`, in three dimensions, is NaN for one without an altitude too. `inliers`
    (n,) says which horizontal residuals are below three standard deviations.
    """

    enu_from_model: Similarity
    horizontal: Array
    spatial: Array
    inliers: NDArray[np.bool_]

    def quality(self) -> dict[str, Any]:
        """Return the figures for the report of a tile or a merge.

        `gps_residual_horizontal_*` are over the `gps_positions` images that have a position,
        `gps_residual_3d_*` over the `gps_altitudes` images that have an altitude too; these are
        left out if no image has one.
        """
        return {
            "gps_positions": int(np.isfinite(self.horizontal).sum()),
            "gps_altitudes": int(np.isfinite(self.spatial).sum()),
            "gps_inliers": int(self.inliers.sum()),
            **_spread("gps_residual_horizontal", self.horizontal),
            **_spread("gps_residual_3d", self.spatial),
        }


def _spread(name: str, residuals: Array) -> dict[str, float]:
    """Return median, 95th percentile and maximum of the residuals that are not NaN."""
    known = residuals[np.isfinite(residuals)]
    if len(known) == 0:
        return {}
    return {
        f"{name}_median_m": float(np.median(known)),
        f"{name}_p95_m": float(np.quantile(known, 0.95)),
        f"{name}_max_m": float(known.max()),
    }


def georegister(
    centres: Array, world_from_camera: Array, gps: GpsPositions
) -> Georegistration | None:
    """Return the similarity from a model's frame to ENU, or None where GPS cannot give one.

    `centres` (n, 3) are projection centres and `world_from_camera` (n, 3, 3) rotations in the
    model's frame, camera axes right, down, forward. At least MIN_POSITIONS distinct positions are
    needed that scatter more than their error, or that follow the shape of the model closer than
    noise would: the GPS track of a camera that stands still is noise. All images at exactly one
    position together have the weight of one image.
    """
    known = np.isfinite(gps.enu[:, 0])
    if known.sum() < MIN_POSITIONS or not _spread_enough(gps.enu[known, :2], gps.sigma[known]):
        return None
    weight = _independent(gps.enu[known])
    upright = vertical_of(world_from_camera)
    start = _upright_start(centres[known], gps.enu[known], gps.sigma[known], weight, upright[0])
    if start is None:
        return None
    similarity = _refine(start, centres[known], gps.enu[known], gps.sigma[known], weight, upright)

    offset = similarity.apply(centres) - gps.enu
    horizontal = np.hypot(offset[:, 0], offset[:, 1])
    inliers = known & (np.nan_to_num(horizontal, nan=np.inf) < _INLIER_SIGMAS * gps.sigma)
    if inliers.sum() < MIN_POSITIONS:
        return None
    counted = inliers[known]
    if _noise_alone(
        gps.enu[known][counted, :2],
        horizontal[known][counted],
        gps.sigma[known][counted],
        weight[counted],
    ):
        return None
    return Georegistration(similarity, horizontal, np.hypot(horizontal, offset[:, 2]), inliers)


def centres_and_rotations(model: pycolmap.Reconstruction) -> tuple[list[str], Array, Array]:
    """Return the names, projection centres (n, 3) and world_from_camera rotations (n, 3, 3).

    They are of the registered images of a model, in the order of their COLMAP ids.
    """
    images = [model.image(number) for number in sorted(model.reg_image_ids())]
    poses = [image.cam_from_world() for image in images]
    rotations = np.array([pose.rotation.matrix().T for pose in poses]).reshape(-1, 3, 3)
    centres = np.array([pose.tgt_origin_in_src() for pose in poses]).reshape(-1, 3)
    return [image.name for image in images], centres, rotations


def _spread_enough(places: Array, sigma: Array) -> bool:
    distinct = np.unique(np.round(places, 1), axis=0)
    if len(distinct) < MIN_POSITIONS:
        return False
    extent = np.linalg.norm(np.ptp(distinct, axis=0))
    return bool(extent > np.median(sigma))


def _noise_alone(places: Array, residuals: Array, sigma: Array, weight: Array) -> bool:
    """Return whether n positions (n, 2) may all be noisy measurements of a single place.

    `residuals` (n,) are the distances from the georegistered model. The hypothesis of a single
    place is rejected if the positions scatter more than `sigma` allows (chi-square test), or if the
    model explains significantly more of the scatter than a single place does (F test of the two
    parameters that a similarity has in addition).
    """
    count = float(weight.sum())
    if count < MIN_POSITIONS - 1e-6:
        return True
    each = weight / sigma**2
    middle = (each[:, None] * places).sum(axis=0) / each.sum()
    at_one_place = float((each * ((places - middle) ** 2).sum(axis=1)).sum())
    by_model = max(float((each * residuals**2).sum()), 1e-12)
    if at_one_place > chdtri(2 * count - 2, 1 - _NO_NOISE):
        return False
    free = 2 * count - 4
    ratio = (at_one_place - by_model) / 2 / (by_model / free)
    return bool(ratio < fdtri(2, free, _NO_NOISE))


def _independent(places: Array) -> Array:
    """Return weights (n,) under which all images at exactly one position weigh as much as one."""
    key = np.round(np.nan_to_num(places), 2)
    _, group, count = np.unique(key, axis=0, return_inverse=True, return_counts=True)
    return 1.0 / count[group.reshape(-1)]


def _upright_start(
    centres: Array, enu: Array, sigma: Array, weight: Array, up: Array
) -> Similarity | None:
    """Return the best plane similarity through two positions, of the model set upright.

    Hypotheses are all pairs of positions, or a fixed random draw of them.
    """
    level = rotation_to_z(up)
    flat = centres @ level.T
    source = flat[:, 0] + 1j * flat[:, 1]
    target = enu[:, 0] + 1j * enu[:, 1]

    first, second = np.triu_indices(len(source), 1)
    if len(first) > _MAX_HYPOTHESES:
        draw = np.random.default_rng(SEED).choice(len(first), _MAX_HYPOTHESES, replace=False)
        first, second = first[np.sort(draw)], second[np.sort(draw)]
    usable = (np.abs(source[second] - source[first]) > 1e-9) & (
        np.abs(target[second] - target[first]) > np.minimum(sigma[first], sigma[second])
    )
    first, second = first[usable], second[usable]
    if len(first) == 0:
        return None
    turn = (target[second] - target[first]) / (source[second] - source[first])
    # The offset of each hypothesis is a median: two points of a track fix the turn better.
    offset = target[None, :] - turn[:, None] * source[None, :]
    shift = np.median(offset.real, axis=1) + 1j * np.median(offset.imag, axis=1)
    error = np.abs(offset - shift[:, None]) / sigma[None, :]
    cost = np.log1p((error / CAUCHY_SIGMAS) ** 2) @ weight
    best = int(np.argmin(cost))

    scale, yaw = float(np.abs(turn[best])), float(np.angle(turn[best]))
    about_z = np.array(
        [[np.cos(yaw), -np.sin(yaw), 0.0], [np.sin(yaw), np.cos(yaw), 0.0], [0.0, 0.0, 1.0]]
    )
    heights = enu[:, 2] - scale * flat[:, 2]
    rise = float(np.nanmedian(heights)) if np.isfinite(heights).any() else 0.0
    translation = np.array([shift[best].real, shift[best].imag, rise])
    return Similarity(scale, about_z @ level, translation)


@dataclass(frozen=True)
class _Residuals:
    """What `_refine` minimises: GPS residuals of n images, and the lean of their cameras.

    `plane` and `height` (n,) are squared residuals in the plane and in height, in squared standard
    deviations; `offset` (n, 3) are the residuals in metres, `lean` (3,) the deviation of the
    vertical from the one that upright cameras suggest, in standard deviations.
    """

    offset: Array
    plane: Array
    height: Array
    lean: Array


@dataclass(frozen=True)
class _Observations:
    """The data of `_refine`: projection centres (n, 3), GPS of the images, and the vertical.

    `enu` (n, 3) are GPS positions whose height is 0 where `has_height` (n,) is false; `sigma` (n,)
    are standard deviations in the plane, `weight` (n,) those of `_independent`. `up` (3,) is the
    vertical in the model and `certainty` (3, 3) the square root of its information.
    """

    centres: Array
    enu: Array
    has_height: NDArray[np.bool_]
    sigma: Array
    weight: Array
    up: Array
    certainty: Array

    def residuals(self, similarity: Similarity) -> _Residuals:
        """Return the residuals under a similarity."""
        offset = similarity.apply(self.centres) - self.enu
        vertical = similarity.rotation.T @ np.array([0.0, 0.0, 1.0])
        return _Residuals(
            offset,
            (offset[:, :2] ** 2).sum(axis=1) / self.sigma**2,
            offset[:, 2] ** 2 / (VERTICAL_FACTOR * self.sigma) ** 2,
            self.certainty @ (vertical - self.up),
        )

    def cost(self, residuals: _Residuals) -> float:
        """Return the Cauchy cost of the GPS residuals plus the squared lean."""
        height = np.where(self.has_height, residuals.height, 0.0)
        robust = self.weight @ (
            np.log1p(residuals.plane / CAUCHY_SIGMAS**2) + np.log1p(height / CAUCHY_SIGMAS**2)
        )
        return float(CAUCHY_SIGMAS**2 * robust + residuals.lean @ residuals.lean)

    def weights(self, residuals: _Residuals) -> Array:
        """Return the weights (n, 3) of the residuals, by Cauchy's function.

        Plane and height are weighted apart, because a blunder in one says nothing of the other.
        Without any height a tiny weight keeps the height of the model where it is.
        """
        plane = self.weight / self.sigma**2 / (1.0 + residuals.plane / CAUCHY_SIGMAS**2)
        if self.has_height.any():
            height = self.has_height * self.weight / (VERTICAL_FACTOR * self.sigma) ** 2
        else:
            height = np.full(len(self.enu), 1e-6)
        height = height / (1.0 + residuals.height / CAUCHY_SIGMAS**2)
        return np.column_stack([plane, plane, height])

    def normal_equations(
        self, similarity: Similarity, residuals: _Residuals
    ) -> tuple[Array, Array]:
        """Return the matrix (7, 7) and the gradient (7,) of a Gauss-Newton step.

        The parameters are those of `_stepped`.
        """
        weights = self.weights(residuals)
        arm = similarity.scale * self.centres @ similarity.rotation.T
        jacobian = np.zeros((len(self.centres), 3, 7))
        jacobian[:, :, 0] = arm
        jacobian[:, :, 1:4] = -cross_matrices(arm)
        jacobian[:, :, 4:] = np.eye(3)
        # d(R^T z) for R <- exp(w) R is R^T (z x w).
        tilt = similarity.rotation.T @ cross_matrices(np.array([[0.0, 0.0, 1.0]]))[0]
        lean_jacobian = np.zeros((3, 7))
        lean_jacobian[:, 1:4] = self.certainty @ tilt
        normal = np.einsum("nik,ni,nil->kl", jacobian, weights, jacobian)
        gradient = np.einsum("nik,ni,ni->k", jacobian, weights, residuals.offset)
        normal += lean_jacobian.T @ lean_jacobian
        gradient += lean_jacobian.T @ residuals.lean
        return normal, gradient


def _refine(
    start: Similarity,
    centres: Array,
    enu: Array,
    sigma: Array,
    weight: Array,
    upright: tuple[Array, Array],
) -> Similarity:
    """Return the similarity that minimises robust GPS residuals and the cameras' lean.

    Gauss-Newton with Levenberg's damping. `upright` is the result of `vertical_of`.
    """
    has_height = np.isfinite(enu[:, 2])
    positions = np.column_stack([enu[:, :2], np.where(has_height, enu[:, 2], 0.0)])
    observed = _Observations(centres, positions, has_height, sigma, weight, *upright)
    current, residuals = start, observed.residuals(start)
    value, damping = observed.cost(residuals), 1e-6
    for _ in range(_MAX_ITERATIONS):
        normal, gradient = observed.normal_equations(current, residuals)
        damped = normal + damping * np.diag(np.diag(normal) + 1e-12)
        step = -np.asarray(np.linalg.solve(damped, gradient), np.float64)
        trial = _stepped(current, step)
        trial_residuals = observed.residuals(trial)
        trial_value = observed.cost(trial_residuals)
        if trial_value <= value:
            converged = value - trial_value < 1e-10 * (1.0 + value)
            current, residuals, value = trial, trial_residuals, trial_value
            damping = max(damping * 0.1, 1e-9)
            if converged:
                break
        else:
            damping *= 10.0
            if damping > 1e6:
                break
    return current


def _stepped(similarity: Similarity, step: Array) -> Similarity:
    """Return a similarity changed by a step (7,): log scale, rotation vector, translation."""
    return Similarity(
        similarity.scale * float(np.exp(np.clip(step[0], -1.0, 1.0))),
        rotation_matrix(step[1:4]) @ similarity.rotation,
        similarity.translation + step[4:],
    )
