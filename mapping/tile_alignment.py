"""One alignment of many tiles: a similarity for each, by what tiles share and by GPS.

What is minimised is the distance, in standard deviations and robustly, between the places that two
tiles give to one image's centre or one point, between the directions of its cameras, and, weakly,
between each tile and where GPS alone has it. The unknowns are seven a tile, the equations sparse:
time and memory grow with the tiles and with what they share, not with their images and points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.spatial.transform import Rotation

from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.georegister import Similarity
from vladmap.mapping.rotations import cross_matrices, rotation_matrix

UNKNOWNS = 7
"""Log scale, rotation vector and shift of a tile."""
# Residuals above so many standard deviations count less (Cauchy). The first steps are not robust:
# they spread what a ring of tiles fails to close by over all of its seams.
_ROBUST_SIGMAS = 10.0
_PLAIN_STEPS = 4
_MAX_STEPS = 30
_CONVERGED = 1e-7


@dataclass(frozen=True)
class Meetings:
    """Places of two tiles each that are one place: m of them.

    `a` and `b` (m,) are tiles, `at_a` and `at_b` (m, 3) the place in either one's frame, `sigma`
    (m,) the standard deviation of their distance in the common frame at the start.
    """

    a: Indices
    b: Indices
    at_a: Array
    at_b: Array
    sigma: Array


@dataclass(frozen=True)
class Turns:
    """Directions of m cameras in two tiles each: world_from_camera, (m, 3, 3); sigma in radians."""

    a: Indices
    b: Indices
    rotation_a: Array
    rotation_b: Array
    sigma: Array


@dataclass(frozen=True)
class Anchors:
    """Places of tiles (m, 3) and where they lie in the common frame, with sigma (m, 3)."""

    tile: Indices
    at: Array
    target: Array
    sigma: Array


@dataclass(frozen=True)
class _State:
    """Similarities about `middle` (n, 3): x -> scale * rotation @ (x - middle) + shift.

    `grown` (n,) is the scale over the first one. What tiles share is measured in their own frames,
    that is, over its geometric mean: in the common frame all would be nearer if all shrank.
    """

    middle: Array
    scale: Array
    grown: Array
    rotation: Array
    shift: Array

    def arms(self, tile: Indices, at: Array) -> Array:
        turned = np.einsum("mij,mj->mi", self.rotation[tile], at - self.middle[tile])
        return self.scale[tile, None] * turned

    def stepped(self, step: Array) -> _State:
        step = step.reshape(-1, UNKNOWNS)
        turn = np.array([rotation_matrix(each) for each in step[:, 1:4]])
        growth = np.exp(np.clip(step[:, 0], -1.0, 1.0))
        return _State(
            self.middle,
            self.scale * growth,
            self.grown * growth,
            turn @ self.rotation,
            self.shift + step[:, 4:],
        )

    def similarities(self) -> list[Similarity]:
        linear = self.scale[:, None, None] * self.rotation
        shift = self.shift - np.einsum("nij,nj->ni", linear, self.middle)
        return [
            Similarity(float(scale), rotation, each)
            for scale, rotation, each in zip(self.scale, self.rotation, shift, strict=True)
        ]


def align(
    start: Sequence[Similarity], middle: Array, meetings: Meetings, turns: Turns, anchors: Anchors
) -> list[Similarity]:
    """Return the similarities that carry n tiles to the common frame.

    `start` are their first values, `middle` (n, 3) the middle of each tile in its own frame. Every
    tile must be joined by meetings to one that has anchors. Gauss-Newton steps on sparse normal
    equations, reweighted by Cauchy's function after the first ones.
    """
    state = _State(
        middle,
        np.array([each.scale for each in start]),
        np.ones(len(start)),
        np.array([each.rotation for each in start]),
        np.array([each.apply(at[None])[0] for each, at in zip(start, middle, strict=True)]),
    )
    for count in range(_MAX_STEPS):
        bound = np.inf if count < _PLAIN_STEPS else _ROBUST_SIGMAS
        parts = [
            _meeting_rows(state, meetings, bound),
            _turn_rows(state, turns, bound),
            _anchor_rows(state, anchors, bound),
        ]
        jacobian = sparse.vstack([part[0] for part in parts]).tocsc()
        residual = np.concatenate([part[1] for part in parts])
        normal = (jacobian.T @ jacobian).tocsc()
        # A tile without extent in some direction leaves an unknown open: it stays.
        normal += sparse.diags_array(1e-12 * normal.diagonal() + 1e-12)
        step = -splu(normal.tocsc()).solve(jacobian.T @ residual)
        state = state.stepped(step)
        if count >= _PLAIN_STEPS and np.abs(step).max() < _CONVERGED:
            break
    return state.similarities()


def _meeting_rows(
    state: _State, meetings: Meetings, bound: float
) -> tuple[sparse.csr_array, Array]:
    ends = [(meetings.a, meetings.at_a, 1.0), (meetings.b, meetings.at_b, -1.0)]
    arms = [sign * state.arms(tile, at) for tile, at, sign in ends]
    grown = np.sqrt(state.grown[meetings.a] * state.grown[meetings.b])[:, None]
    apart = sum(
        arm + sign * state.shift[tile] for arm, (tile, _, sign) in zip(arms, ends, strict=True)
    )
    residual = apart / grown
    parts = []
    for arm, (tile, _, sign) in zip(arms, ends, strict=True):
        blocks = _derivative(arm, sign) / grown[:, :, None]
        blocks[:, :, 0] -= residual / 2.0
        parts.append((tile, blocks))
    return _rows(parts, residual, meetings.sigma[:, None], len(state.scale), bound)


def _turn_rows(state: _State, turns: Turns, bound: float) -> tuple[sparse.csr_array, Array]:
    a = state.rotation[turns.a] @ turns.rotation_a
    b = state.rotation[turns.b] @ turns.rotation_b
    residual = Rotation.from_matrix(a @ b.transpose(0, 2, 1)).as_rotvec() if len(a) else a[:, 0]
    blocks = np.zeros((len(a), 3, UNKNOWNS))
    blocks[:, :, 1:4] = np.eye(3)
    parts = [(turns.a, blocks), (turns.b, -blocks)]
    return _rows(parts, residual, turns.sigma[:, None], len(state.scale), bound)


def _anchor_rows(state: _State, anchors: Anchors, bound: float) -> tuple[sparse.csr_array, Array]:
    arm = state.arms(anchors.tile, anchors.at)
    residual = arm + state.shift[anchors.tile] - anchors.target
    parts = [(anchors.tile, _derivative(arm, 1.0))]
    return _rows(parts, residual, anchors.sigma, len(state.scale), bound)


def _derivative(arm: Array, sign: float) -> Array:
    """Return the derivatives (m, 3, 7) of sign * (scale * rotation @ x + shift).

    `arm` (m, 3) is sign * scale * rotation @ x.
    """
    blocks = np.zeros((len(arm), 3, UNKNOWNS))
    blocks[:, :, 0] = arm
    blocks[:, :, 1:4] = -cross_matrices(arm)
    blocks[:, :, 4:] = sign * np.eye(3)
    return blocks


def _rows(
    parts: Sequence[tuple[Indices, Array]],
    residual: Array,
    sigma: Array,
    tiles: int,
    bound: float,
) -> tuple[sparse.csr_array, Array]:
    """Return the weighted rows of the Jacobian, (3 m, 7 n), and the weighted residuals (3 m,)."""
    count = len(residual)
    scaled = residual / sigma
    weight = np.sqrt(1.0 / (1.0 + (scaled**2).sum(axis=1) / bound**2))[:, None] / sigma
    weight = np.broadcast_to(weight, (count, 3))
    row = np.broadcast_to(np.arange(3 * count).reshape(count, 3, 1), (count, 3, UNKNOWNS))
    data, rows, columns = [], [], []
    for tile, blocks in parts:
        column = UNKNOWNS * tile[:, None, None] + np.arange(UNKNOWNS)
        data.append((weight[:, :, None] * blocks).ravel())
        rows.append(row.ravel())
        columns.append(np.broadcast_to(column, blocks.shape).ravel())
    matrix = sparse.coo_array(
        (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns))),
        shape=(3 * count, UNKNOWNS * tiles),
    )
    return matrix.tocsr(), (weight * residual).ravel()
