"""Georegistration: the similarity that carries a model into the ENU frame, from noisy GPS.

Weighted least squares over every position, with real covariances, made robust by reweighting. GPS
says nothing of the roll of a straight street about itself and little of its slope; there, that
photographs are taken about upright decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapping.colmap import SEED, pycolmap
from mapping.geodesy import ecef_to_geodetic, geodetic_to_ecef, geodetic_to_enu

# Assumed of a position that states no accuracy: one sigma, horizontal, of a phone in a street.
DEFAULT_ACCURACY_M = 5.0
# The vertical error of GPS over its horizontal one.
VERTICAL_FACTOR = 2.0
MIN_POSITIONS = 3

# How far, as a whole, the cameras of a model may lean, in radians, one sigma: sideways they are
# held or mounted upright, up and down they may look.
_ROLL_SIGMA = np.radians(2.0)
_PITCH_SIGMA = np.radians(10.0)
_INLIER_SIGMAS = 3.0
_CAUCHY_SIGMAS = 2.0
_MAX_HYPOTHESES = 2000
_MAX_ITERATIONS = 100

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Positions:
    """GPS of n images in an ENU frame: `enu` (n, 3), one sigma horizontal `sigma` (n,), metres.

    `enu` is NaN in all three columns without a position, in the last without an altitude.
    """

    enu: Array
    sigma: Array


@dataclass(frozen=True)
class Similarity:
    """target = scale * rotation @ source + translation."""

    scale: float
    rotation: Array
    translation: Array

    def apply(self, points: Array) -> Array:
        """Return the (n, 3) points carried over."""
        return self.scale * points @ self.rotation.T + self.translation

    def to_colmap(self) -> pycolmap.Sim3d:
        """Return COLMAP's form."""
        return pycolmap.Sim3d(self.scale, pycolmap.Rotation3d(self.rotation), self.translation)


@dataclass(frozen=True)
class Georegistration:
    """A similarity from model to ENU and how well GPS bears it out.

    `residuals` (n,) metres: the distance from GPS, horizontal where there is no altitude; NaN
    without a position. `inliers` (n,) bool.
    """

    enu_from_model: Similarity
    residuals: Array
    inliers: NDArray[np.bool_]

    def quality(self) -> dict[str, Any]:
        """Return the figures that go into a tile's report."""
        known = self.residuals[np.isfinite(self.residuals)]
        return {
            "gps_positions": len(known),
            "gps_inliers": int(self.inliers.sum()),
            "gps_residual_median_m": float(np.median(known)),
            "gps_residual_p95_m": float(np.quantile(known, 0.95)),
            "gps_residual_max_m": float(known.max()),
        }


def choose_origin(latitude: Array, longitude: Array, altitude: Array) -> tuple[float, float, float]:
    """Return an ENU origin (degree, degree, m) amid positions, NaN for unknown; (0, 0, 0) if none.

    The median in earth-centred coordinates, so that neither an outlier nor the antimeridian moves
    it far, rounded to about a metre.
    """
    known = np.isfinite(latitude) & np.isfinite(longitude)
    if not known.any():
        return 0.0, 0.0, 0.0
    places = np.stack([latitude[known], longitude[known], np.zeros(known.sum())], axis=1)
    middle = ecef_to_geodetic(np.median(geodetic_to_ecef(places), axis=0))
    heights = altitude[known & np.isfinite(altitude)]
    height = float(np.round(np.median(heights))) if len(heights) else 0.0
    return float(np.round(middle[0], 5)), float(np.round(middle[1], 5)), height


def positions_of(
    rows: Sequence[Mapping[str, Any]],
    origin: tuple[float, float, float],
    default_sigma_m: float = DEFAULT_ACCURACY_M,
) -> Positions:
    """Return the GPS of rows with the IMAGES columns latitude ... gps_accuracy_m, in ENU.

    A position without a stated accuracy has `default_sigma_m`.
    """

    def column(name: str) -> Array:
        return np.array(
            [np.nan if row[name] is None else row[name] for row in rows], np.float64
        ).reshape(-1)

    latitude, longitude, altitude = (column(name) for name in ("latitude", "longitude", "altitude"))
    sigma = column("gps_accuracy_m")
    known = np.isfinite(latitude) & np.isfinite(longitude)
    has_height = known & np.isfinite(altitude)
    places = np.stack([latitude, longitude, np.where(has_height, altitude, origin[2])], axis=1)
    places[~known] = origin
    enu = geodetic_to_enu(places, origin)
    enu[~has_height, 2] = np.nan
    enu[~known] = np.nan
    return Positions(enu, np.where(np.isfinite(sigma) & (sigma > 0), sigma, default_sigma_m))


def georegister(centres: Array, world_from_camera: Array, gps: Positions) -> Georegistration | None:
    """Return the similarity from a model's frame to ENU, or None where GPS cannot give one.

    `centres` (n, 3) are projection centres and `world_from_camera` (n, 3, 3) rotations in the
    model's frame, camera axes right, down, forward. It takes MIN_POSITIONS places further apart
    than their error; many images at one place count as one.
    """
    known = np.isfinite(gps.enu[:, 0])
    if known.sum() < MIN_POSITIONS or not _spread_enough(gps.enu[known, :2], gps.sigma[known]):
        return None
    weight = _independent(gps.enu[known])
    right, up = world_from_camera[:, :, 0], -world_from_camera[:, :, 1]
    start = _upright_start(centres[known], gps, known, weight, right, up)
    if start is None:
        return None
    similarity = _refine(start, centres[known], gps.enu[known], gps.sigma[known], weight, right, up)

    offset = similarity.apply(centres) - gps.enu
    horizontal = np.hypot(offset[:, 0], offset[:, 1])
    residuals = np.hypot(horizontal, np.where(np.isfinite(offset[:, 2]), offset[:, 2], 0.0))
    inliers = known & (np.nan_to_num(horizontal, nan=np.inf) < _INLIER_SIGMAS * gps.sigma)
    if inliers.sum() < MIN_POSITIONS:
        return None
    return Georegistration(similarity, np.where(known, residuals, np.nan), inliers)


def centres_and_rotations(model: pycolmap.Reconstruction) -> tuple[list[str], Array, Array]:
    """Return names, centres (n, 3) and world_from_camera rotations (n, 3, 3), by image id."""
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


def _independent(places: Array) -> Array:
    """Return weights that let all images at one exact position count as a single one."""
    key = np.round(np.nan_to_num(places), 2)
    _, group, count = np.unique(key, axis=0, return_inverse=True, return_counts=True)
    return 1.0 / count[group.reshape(-1)]


def _upright_start(
    centres: Array,
    gps: Positions,
    known: NDArray[np.bool_],
    weight: Array,
    right: Array,
    up: Array,
) -> Similarity | None:
    """Return the best plane similarity through two positions, of the model set upright.

    Upright is the direction that is most nearly at right angles to all cameras' horizontal axes
    and near their mean upward axis. Hypotheses are all pairs, or a fixed random draw of them.
    """
    mean_up = up.mean(axis=0)
    normal = right.T @ right / len(right) / _ROLL_SIGMA**2 + np.eye(3) / _PITCH_SIGMA**2
    vertical = np.linalg.solve(normal, mean_up / _PITCH_SIGMA**2)
    if np.linalg.norm(vertical) < 1e-9:
        return None
    level = _rotation_to_z(vertical / np.linalg.norm(vertical))
    flat = centres @ level.T
    source = flat[:, 0] + 1j * flat[:, 1]
    target = gps.enu[known, 0] + 1j * gps.enu[known, 1]
    sigma = gps.sigma[known]

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
    cost = np.log1p((error / _CAUCHY_SIGMAS) ** 2) @ weight
    best = int(np.argmin(cost))

    scale, yaw = float(np.abs(turn[best])), float(np.angle(turn[best]))
    about_z = np.array(
        [[np.cos(yaw), -np.sin(yaw), 0.0], [np.sin(yaw), np.cos(yaw), 0.0], [0.0, 0.0, 1.0]]
    )
    heights = gps.enu[known, 2] - scale * flat[:, 2]
    rise = float(np.nanmedian(heights)) if np.isfinite(heights).any() else 0.0
    translation = np.array([shift[best].real, shift[best].imag, rise])
    return Similarity(scale, about_z @ level, translation)


def _refine(
    start: Similarity,
    centres: Array,
    enu: Array,
    sigma: Array,
    weight: Array,
    right: Array,
    up: Array,
) -> Similarity:
    """Return the similarity that minimises robust GPS residuals and the cameras' lean.

    Gauss-Newton with Levenberg's damping on log scale, a rotation vector and the translation;
    Cauchy weights, apart for the plane and the height, whose blunders are their own.
    """
    spread = np.linalg.eigh(right.T @ right / len(right))
    roll_factor = (spread[1] * np.sqrt(np.maximum(spread[0], 0.0))).T / _ROLL_SIGMA
    mean_up = up.mean(axis=0) / np.linalg.norm(up.mean(axis=0))
    has_height = np.isfinite(enu[:, 2])
    height = np.where(has_height, enu[:, 2], 0.0)
    plane_weight = weight / sigma**2
    rise_weight = has_height * weight / (VERTICAL_FACTOR * sigma) ** 2

    def residuals(similarity: Similarity) -> tuple[Array, Array]:
        offset = similarity.apply(centres) - np.column_stack([enu[:, :2], height])
        vertical = similarity.rotation.T @ np.array([0.0, 0.0, 1.0])
        lean = np.concatenate([roll_factor @ vertical, (vertical - mean_up) / _PITCH_SIGMA])
        return offset, lean

    def cost(offset: Array, lean: Array) -> float:
        plane = (offset[:, :2] ** 2).sum(axis=1) / sigma**2
        rise = np.where(has_height, offset[:, 2] ** 2, 0.0) / (VERTICAL_FACTOR * sigma) ** 2
        robust = weight @ (np.log1p(plane / _CAUCHY_SIGMAS**2) + np.log1p(rise / _CAUCHY_SIGMAS**2))
        return float(_CAUCHY_SIGMAS**2 * robust + lean @ lean)

    current = start
    if not has_height.any():
        rise_weight = np.full(len(enu), 1e-6)
    offset, lean = residuals(current)
    value, damping = cost(offset, lean), 1e-6
    for _ in range(_MAX_ITERATIONS):
        plane = (offset[:, :2] ** 2).sum(axis=1) / sigma**2
        rise = offset[:, 2] ** 2 / (VERTICAL_FACTOR * sigma) ** 2
        weights = np.column_stack(
            [
                plane_weight / (1.0 + plane / _CAUCHY_SIGMAS**2),
                plane_weight / (1.0 + plane / _CAUCHY_SIGMAS**2),
                rise_weight / (1.0 + rise / _CAUCHY_SIGMAS**2),
            ]
        )
        arm = current.scale * centres @ current.rotation.T
        jacobian = np.zeros((len(centres), 3, 7))
        jacobian[:, :, 0] = arm
        jacobian[:, :, 1:4] = -_cross_matrices(arm)
        jacobian[:, :, 4:] = np.eye(3)
        # d(R^T z) for R <- exp(w) R is R^T (z x w).
        tilt = current.rotation.T @ _cross_matrices(np.array([[0.0, 0.0, 1.0]]))[0]
        lean_jacobian = np.zeros((6, 7))
        lean_jacobian[:3, 1:4] = roll_factor @ tilt
        lean_jacobian[3:, 1:4] = tilt / _PITCH_SIGMA
        normal = np.einsum("nik,ni,nil->kl", jacobian, weights, jacobian)
        gradient = np.einsum("nik,ni,ni->k", jacobian, weights, offset)
        normal += lean_jacobian.T @ lean_jacobian
        gradient += lean_jacobian.T @ lean
        step = -np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), gradient)
        trial = Similarity(
            current.scale * float(np.exp(np.clip(step[0], -1.0, 1.0))),
            _exponential(step[1:4]) @ current.rotation,
            current.translation + step[4:],
        )
        trial_offset, trial_lean = residuals(trial)
        trial_value = cost(trial_offset, trial_lean)
        if trial_value <= value:
            converged = value - trial_value < 1e-10 * (1.0 + value)
            current, offset, lean, value = trial, trial_offset, trial_lean, trial_value
            damping = max(damping * 0.1, 1e-9)
            if converged:
                break
        else:
            damping *= 10.0
            if damping > 1e6:
                break
    return current


def _rotation_to_z(direction: Array) -> Array:
    """Return the smallest rotation that carries a unit vector to (0, 0, 1)."""
    axis = np.cross(direction, [0.0, 0.0, 1.0])
    sine, cosine = np.linalg.norm(axis), direction[2]
    if sine < 1e-12:
        return np.eye(3) if cosine > 0 else np.diag([1.0, -1.0, -1.0])
    return _exponential(axis / sine * np.arctan2(sine, cosine))


def _exponential(vector: Array) -> Array:
    """Return the rotation matrix of a rotation vector in radians (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    cross = _cross_matrices((vector / angle)[None])[0]
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross


def _cross_matrices(vectors: Array) -> Array:
    """Return the (n, 3, 3) matrices whose products are cross products with (n, 3) `vectors`."""
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    return np.stack(
        [
            np.stack([zero, -z, y], axis=-1),
            np.stack([z, zero, -x], axis=-1),
            np.stack([-y, x, zero], axis=-1),
        ],
        axis=-2,
    )
