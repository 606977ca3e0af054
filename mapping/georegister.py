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
from scipy.special import chdtri, fdtri

from vladmap.features.colmap import pycolmap
from vladmap.geodesy.wgs84 import ecef_on_ellipsoid, ecef_to_geodetic, geodetic_to_enu
from vladmap.mapping.colmap import SEED

# Assumed of a position that states no accuracy: one sigma, horizontal, of a phone in a street.
DEFAULT_ACCURACY_M = 5.0
# The vertical error of GPS over its horizontal one.
VERTICAL_FACTOR = 2.0
MIN_POSITIONS = 3

# How far a camera's mount, or a photographer's habit, may lean, in radians, one sigma: sideways
# they are held upright, up and down they may look. On top of that each image leans on its own, by
# what the images themselves show but no less than the floor; neighbours lean alike, so that so
# many of them count as one.
_MOUNT_ROLL_SIGMA = np.radians(2.0)
_MOUNT_PITCH_SIGMA = np.radians(10.0)
_LEAN_FLOOR = np.radians(0.5)
_ALIKE = 4.0
_INLIER_SIGMAS = 3.0
_NO_NOISE = 0.95
# Of Cauchy weights: 95 % as good as least squares where the noise is Gaussian.
_CAUCHY_SIGMAS = 2.385
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

    Distances from GPS in metres, each (n,): `horizontal` is NaN without a position, `spatial`, in
    three dimensions, without an altitude too. `inliers` (n,) bool.
    """

    enu_from_model: Similarity
    horizontal: Array
    spatial: Array
    inliers: NDArray[np.bool_]

    def quality(self) -> dict[str, Any]:
        """Return the figures that go into the report of a tile or a merge.

        `gps_residual_horizontal_*` is of `gps_positions` images, `gps_residual_3d_*` of those
        `gps_altitudes` that have an altitude too; it is left out where none has.
        """
        return {
            "gps_positions": int(np.isfinite(self.horizontal).sum()),
            "gps_altitudes": int(np.isfinite(self.spatial).sum()),
            "gps_inliers": int(self.inliers.sum()),
            **_spread("gps_residual_horizontal", self.horizontal),
            **_spread("gps_residual_3d", self.spatial),
        }


def _spread(name: str, residuals: Array) -> dict[str, float]:
    """Median, 95th percentile and maximum of the residuals that are known."""
    known = residuals[np.isfinite(residuals)]
    if len(known) == 0:
        return {}
    return {
        f"{name}_median_m": float(np.median(known)),
        f"{name}_p95_m": float(np.quantile(known, 0.95)),
        f"{name}_max_m": float(known.max()),
    }


def choose_origin(latitude: Array, longitude: Array, altitude: Array) -> tuple[float, float, float]:
    """Return an ENU origin (degree, degree, m) amid positions, NaN for unknown; (0, 0, 0) if none.

    The median in earth-centred coordinates, so that neither an outlier nor the antimeridian moves
    it far, rounded to about a metre.
    """
    known = np.isfinite(latitude) & np.isfinite(longitude)
    if not known.any():
        return 0.0, 0.0, 0.0
    places = ecef_on_ellipsoid(latitude[known], longitude[known])
    middle = ecef_to_geodetic(np.median(places, axis=0))
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
    than their error, or that follow the model's own shape as noise would not: the GPS of a camera
    that stands is no way travelled. Many images at one place count as one.
    """
    known = np.isfinite(gps.enu[:, 0])
    if known.sum() < MIN_POSITIONS or not _spread_enough(gps.enu[known, :2], gps.sigma[known]):
        return None
    weight = _independent(gps.enu[known])
    upright = _vertical(world_from_camera)
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


def _noise_alone(places: Array, residuals: Array, sigma: Array, weight: Array) -> bool:
    """Whether one place and the error of GPS explain n positions (n, 2) as well as the model does.

    That they lie at one place is rejected where they scatter more than `sigma` allows (chi-square),
    or where the model leaves so little of their scatter that chance would not (F test of the two
    parameters that a similarity has more than a place); `residuals` (n,) are from the model.
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
    """Return weights that let all images at one exact position count as a single one."""
    key = np.round(np.nan_to_num(places), 2)
    _, group, count = np.unique(key, axis=0, return_inverse=True, return_counts=True)
    return 1.0 / count[group.reshape(-1)]


def _vertical(world_from_camera: Array) -> tuple[Array, Array]:
    """Return the direction up (3,) in the model, and the square root (3, 3) of its information.

    The roll and pitch of n upright cameras, (n, 3, 3), are those of their mount, the same for all,
    plus their own. Seen under all headings a mount's lean cancels; along a straight street it
    cannot be told from the street's, and the prior on mounts decides.
    """
    right, forward = world_from_camera[:, :, 0], world_from_camera[:, :, 2]
    up = -world_from_camera[:, :, 1].mean(axis=0)
    up /= max(float(np.linalg.norm(up)), 1e-12)
    count = len(world_from_camera)
    for _ in range(10):
        _, _, axes = np.linalg.svd(up[None])
        tangent = axes[1:].T
        # Unknown: two tangent steps of `up`, the mount's roll and its pitch.
        design = np.zeros((2 * count, 4))
        design[:count, :2], design[count:, :2] = right @ tangent, forward @ tangent
        design[:count, 2] = design[count:, 3] = -1.0
        lean = np.concatenate([right @ up, forward @ up])
        own = lean - np.repeat([np.median(lean[:count]), np.median(lean[count:])], count)
        scatter = np.repeat(
            [
                max(_LEAN_FLOOR, 1.4826 * float(np.median(np.abs(part))))
                for part in (own[:count], own[count:])
            ],
            count,
        )
        robust = 1.0 / (1.0 + (own / scatter / _CAUCHY_SIGMAS) ** 2)
        weight = robust / scatter**2 / _ALIKE
        normal = design.T @ (weight[:, None] * design)
        normal += np.diag([0.0, 0.0, _MOUNT_ROLL_SIGMA**-2, _MOUNT_PITCH_SIGMA**-2])
        step = np.linalg.lstsq(normal, -design.T @ (weight * lean), rcond=None)[0]
        up = up + tangent @ step[:2]
        up /= np.linalg.norm(up)
        if np.linalg.norm(step[:2]) < 1e-9:
            break
    # The mount is eliminated: what remains is known of `up` alone.
    information = normal[:2, :2] - normal[:2, 2:] @ np.linalg.solve(normal[2:, 2:], normal[2:, :2])
    value, vector = np.linalg.eigh(information)
    root = (vector * np.sqrt(np.maximum(value, 0.0))).T @ tangent.T
    return up, np.vstack([root, np.zeros((1, 3))])


def _upright_start(
    centres: Array, enu: Array, sigma: Array, weight: Array, up: Array
) -> Similarity | None:
    """Return the best plane similarity through two positions, of the model set upright.

    Hypotheses are all pairs of positions, or a fixed random draw of them.
    """
    level = _rotation_to_z(up)
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
    cost = np.log1p((error / _CAUCHY_SIGMAS) ** 2) @ weight
    best = int(np.argmin(cost))

    scale, yaw = float(np.abs(turn[best])), float(np.angle(turn[best]))
    about_z = np.array(
        [[np.cos(yaw), -np.sin(yaw), 0.0], [np.sin(yaw), np.cos(yaw), 0.0], [0.0, 0.0, 1.0]]
    )
    heights = enu[:, 2] - scale * flat[:, 2]
    rise = float(np.nanmedian(heights)) if np.isfinite(heights).any() else 0.0
    translation = np.array([shift[best].real, shift[best].imag, rise])
    return Similarity(scale, about_z @ level, translation)


def _refine(
    start: Similarity,
    centres: Array,
    enu: Array,
    sigma: Array,
    weight: Array,
    upright: tuple[Array, Array],
) -> Similarity:
    """Return the similarity that minimises robust GPS residuals and the cameras' lean.

    Gauss-Newton with Levenberg's damping on log scale, a rotation vector and the translation;
    Cauchy weights, apart for the plane and the height, whose blunders are their own.
    """
    up, certainty = upright
    has_height = np.isfinite(enu[:, 2])
    height = np.where(has_height, enu[:, 2], 0.0)
    plane_weight = weight / sigma**2
    rise_weight = has_height * weight / (VERTICAL_FACTOR * sigma) ** 2

    def residuals(similarity: Similarity) -> tuple[Array, Array]:
        offset = similarity.apply(centres) - np.column_stack([enu[:, :2], height])
        vertical = similarity.rotation.T @ np.array([0.0, 0.0, 1.0])
        lean = certainty @ (vertical - up)
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
        lean_jacobian = np.zeros((3, 7))
        lean_jacobian[:, 1:4] = certainty @ tilt
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
