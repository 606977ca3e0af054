"""Positions of all images from their pairs and GPS, each stretch of a drive with its own errors.

The pairs' baselines are vectors in the frame of the rotation averaging, in the unit of the relative
lengths. That frame drifts along a drive: each stretch has its own small turn and its own scale. GPS
has an offset that each stretch shares. All of them are unknown together with the positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix, identity
from scipy.spatial.transform import Rotation

from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.symmetric import solve_symmetric

# Standard deviations of the unknowns of a stretch or piece, and of their steps from the one before:
# the offset of GPS in metres, the turn in radians, the logarithm of the scale.
_OFFSET = (8.0, 2.0)
# Among high houses GPS is off by tens of metres, as long as a street lasts: offsets have long
# tails, and so have their steps. Geman-McClure scales, in metres.
_FAR_OFFSET_M = 10.0
_JUMP_M = 6.0
_TURN = (np.radians(3.0), np.radians(1.0))
_LOG_SCALE = (0.3, 0.05)
# The error of a baseline is this share of its length, and at least so many metres.
_LENGTH_ERROR = 0.07
_LEAST_ERROR_M = 0.2
# Errors of pairs of the same images are correlated: four count as one independent one.
_CORRELATED = 4.0
# Cameras are held upright up to so many radians; ten neighbours lean together.
_LEAN = np.radians(4.0)
_FAR_LEAN = np.radians(10.0)
_LEAN_TOGETHER = 10.0
# The variance of GPS upwards, over that along the ground.
_VERTICAL_VARIANCE = 4.0
_MAX_LOG_STEP = 0.5
# A position of GPS so many standard deviations off has a quarter of its weight.
_FAR_GPS = 4.0


@dataclass(frozen=True)
class Ground:
    """What is known of n images beside their pairs, in one east-north-up frame.

    `gps` (n, 3) is metres, NaN where unknown, the last column also where only the altitude is;
    `sigma` (n,) is its standard deviation along the ground. `stretch` (n,) is the stretch of each
    image, `follows` the stretches (f,) and the next ones (f,) in the same drive, of
    `stretches`. `piece` (n,) and `pieces_follow` are the same of the shorter pieces that share an
    offset of GPS; `offsets` (q,) says which pieces have one: images of no drive share none.
    """

    gps: Array
    sigma: Array
    stretch: Indices
    stretches: int
    follows: tuple[Indices, Indices]
    piece: Indices
    pieces_follow: tuple[Indices, Indices]
    offsets: Bools


@dataclass(frozen=True)
class Baselines:
    """m pairs: rows of their images, and second minus first (m, 3) in the rotations' frame."""

    first: Indices
    second: Indices
    vector: Array

    def only(self, rows: Indices) -> Baselines:
        """Some rows of the pairs."""
        return Baselines(self.first[rows], self.second[rows], self.vector[rows])

    def error_m(self, scale: Array) -> Array:
        """The standard deviation (m,) of a baseline's error, of vectors times `scale` (m,)."""
        return baseline_error_m(np.linalg.norm(self.vector, axis=1) * scale)


def baseline_error_m(length: Array) -> Array:
    """The standard deviation of the error of a baseline of so many metres, in metres."""
    return np.maximum(_LEAST_ERROR_M, _LENGTH_ERROR * length)


@dataclass(frozen=True)
class Frames:
    """Positions (n, 3) in ENU, and of each stretch what carries the rotations' frame to ENU.

    `turn` (s, 3, 3) and `scale` (s,) carry a baseline of the rotations' frame to ENU; `offset`
    (s, 3) is that of GPS, in metres.
    """

    position: Array
    turn: Array
    scale: Array
    offset: Array

    def carried(self, baselines: Baselines, stretch: Indices) -> Array:
        """The baselines (m, 3) in ENU, each by the stretch of its first image."""
        at = stretch[baselines.first]
        turned = np.einsum("mij,mj->mi", self.turn[at], baselines.vector)
        return turned * self.scale[at][:, None]

    def residuals(self, baselines: Baselines, stretch: Indices) -> Array:
        """How far the positions are from the baselines, (m,) metres."""
        apart = self.position[baselines.second] - self.position[baselines.first]
        return np.linalg.norm(apart - self.carried(baselines, stretch), axis=1)


class _Rows:
    """Rows of a sparse linear system, weighted; each added block has one right side per row."""

    def __init__(self) -> None:
        self.rows: list[Indices] = []
        self.columns: list[Indices] = []
        self.values: list[Array] = []
        self.right: list[Array] = []
        self.weight: list[Array] = []
        self.count = 0

    def block(self, right: Array, weight: Array, *entries: tuple[Indices, Array]) -> None:
        """Add len(right) rows; each entry gives the columns and values of one term of them."""
        rows = self.count + np.arange(len(right))
        for columns, values in entries:
            self.rows.append(rows)
            self.columns.append(columns)
            self.values.append(np.broadcast_to(values, rows.shape))
        self.right.append(right)
        self.weight.append(np.broadcast_to(weight, rows.shape))
        self.count += len(right)

    def solve(self, unknowns: int) -> Array:
        """The weighted least-squares solution, (unknowns,)."""
        shape = (self.count, unknowns)
        place = (np.concatenate(self.rows), np.concatenate(self.columns))
        matrix = csr_matrix((np.concatenate(self.values), place), shape)
        weighted = matrix.multiply(np.concatenate(self.weight)[:, None]).tocsr()
        normal = (matrix.T @ weighted + 1e-8 * identity(unknowns)).tocsc()
        return solve_symmetric(normal, weighted.T @ np.concatenate(self.right))


def adjust_frames(
    start: Frames, ground: Ground, baselines: Baselines, up: Array, widths: Sequence[float]
) -> Frames:
    """Adjust positions, frames and offsets together to baselines, GPS and the vertical.

    `up` (n, 3) is the upward direction of each camera in the rotations' frame. The errors of
    baselines and GPS have Geman-McClure weights whose scale shrinks over `widths`, in metres
    (graduated non-convexity); at each width the problem is linear. Without any GPS nothing says how
    large all is, and the smaller all is, the smaller are the residuals: the mean of the scales is
    kept.
    """
    frames = start
    for width in widths:
        frames = _step(frames, ground, baselines, up, float(width))
        if not np.isfinite(ground.gps[:, 0]).any():
            frames = _resized(frames, start.scale)
    return frames


def _resized(frames: Frames, scale: Array) -> Frames:
    """The frames at the size at which their scales have the geometric mean of `scale` (s,)."""
    factor = float(np.exp((np.log(scale) - np.log(frames.scale)).mean()))
    middle = frames.position.mean(axis=0)
    position = middle + factor * (frames.position - middle)
    return Frames(position, frames.turn, factor * frames.scale, frames.offset)


def _step(frames: Frames, ground: Ground, baselines: Baselines, up: Array, width: float) -> Frames:
    images, stretches, pieces = len(frames.position), ground.stretches, len(ground.offsets)
    first, second = baselines.first, baselines.second
    at = ground.stretch[first]
    vector = frames.carried(baselines, ground.stretch)
    # Where each kind of unknown begins: positions, offsets, turns, log scales.
    offsets, turns = 3 * images, 3 * images + 3 * pieces
    scales = turns + 3 * stretches
    system = _Rows()

    error = np.maximum(baseline_error_m(np.linalg.norm(vector, axis=1)), width)
    apart = frames.position[second] - frames.position[first]
    off = np.linalg.norm(apart - vector, axis=1)
    weight = 1.0 / (1.0 + (off / (3 * error)) ** 2) ** 2 / error**2 / _CORRELATED
    for axis, after, last in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        # second - first - vector - turn x vector - log_scale * vector = 0
        system.block(
            vector[:, axis],
            weight,
            (3 * second + axis, np.array(1.0)),
            (3 * first + axis, np.array(-1.0)),
            (turns + 3 * at + after, -vector[:, last]),
            (turns + 3 * at + last, vector[:, after]),
            (scales + at, -apart[:, axis]),
        )
    _add_gps(system, frames, ground, offsets, width)
    _add_vertical(system, frames, ground, up, turns)
    jumps = frames.offset[ground.pieces_follow[1]] - frames.offset[ground.pieces_follow[0]]
    weights = (
        _long_tailed(frames.offset, max(width, _FAR_OFFSET_M)),
        _long_tailed(jumps, max(width, _JUMP_M)),
    )
    _add_priors(system, offsets, _OFFSET, ground.pieces_follow, weights, 3)
    even = np.ones(stretches), np.ones(len(ground.follows[0]))
    _add_priors(system, turns, _TURN, ground.follows, even, 3)
    _add_priors(system, scales, _LOG_SCALE, ground.follows, even, 1)
    solution = system.solve(scales + stretches)
    turn = Rotation.from_rotvec(solution[turns:scales].reshape(stretches, 3)).as_matrix()
    log_scale = np.clip(solution[scales:], -_MAX_LOG_STEP, _MAX_LOG_STEP)
    return Frames(
        solution[:offsets].reshape(images, 3),
        turn @ frames.turn,
        frames.scale * np.exp(log_scale),
        solution[offsets:turns].reshape(pieces, 3),
    )


def _add_gps(system: _Rows, frames: Frames, ground: Ground, offsets: int, width: float) -> None:
    """position + offset = GPS; along the ground and upwards are weighted apart."""
    shift = np.where(ground.offsets[ground.piece, None], frames.offset[ground.piece], 0.0)
    off = frames.position + shift - ground.gps
    for axes, factor in (((0, 1), 1.0), ((2,), _VERTICAL_VARIANCE)):
        known = np.flatnonzero(np.isfinite(ground.gps[:, axes[0]]))
        at, sigma = ground.piece[known], np.maximum(ground.sigma[known], width) * np.sqrt(factor)
        size = np.linalg.norm(off[known][:, axes], axis=1)
        weight = 1.0 / (1.0 + (size / (_FAR_GPS * sigma)) ** 2) ** 2 / sigma**2
        for axis in axes:
            system.block(
                ground.gps[known, axis],
                weight,
                (3 * known + axis, np.array(1.0)),
                (offsets + 3 * at + axis, ground.offsets[at].astype(np.float64)),
            )


def _add_vertical(system: _Rows, frames: Frames, ground: Ground, up: Array, turns: int) -> None:
    """Cameras are upright: turn x up + up has no part along the ground."""
    at = ground.stretch
    now = np.einsum("nij,nj->ni", frames.turn[at], up)
    lean = np.linalg.norm(now[:, :2], axis=1)
    weight = _LEAN**-2.0 / (1.0 + (lean / _FAR_LEAN) ** 2) ** 2 / _LEAN_TOGETHER
    for axis, after, last in ((0, 1, 2), (1, 2, 0)):
        system.block(
            -now[:, axis],
            weight,
            (turns + 3 * at + after, now[:, last]),
            (turns + 3 * at + last, -now[:, after]),
        )


def _long_tailed(vectors: Array, scale: float) -> Array:
    """The Geman-McClure weights (k,) of vectors (k, 3)."""
    return np.asarray(1.0 / (1.0 + (vectors**2).sum(axis=1) / scale**2) ** 2)


def _add_priors(
    system: _Rows,
    begin: int,
    sigmas: tuple[float, float],
    follows: tuple[Indices, Indices],
    weights: tuple[Array, Array],
    size: int,
) -> None:
    """The unknowns of a stretch, `size` of them, are small, and close to those of the one before.

    They are the system's columns from `begin` on. `weights` are of each stretch and of each step.
    """
    own, step = (
        np.repeat(weight, size) * sigma**-2.0 for weight, sigma in zip(weights, sigmas, strict=True)
    )
    every = begin + np.arange(len(own))
    system.block(np.zeros(len(own)), own, (every, np.array(1.0)))
    one, other = (begin + (rows[:, None] * size + np.arange(size)).ravel() for rows in follows)
    system.block(np.zeros(len(one)), step, (one, np.array(1.0)), (other, np.array(-1.0)))
