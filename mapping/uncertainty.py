"""How exactly the observations of a model hold its photographs: the covariance of their positions.

Bundle adjustment leaves the normal equations of all poses and points. What noise of the keypoints
does to the positions follows from them: the points are eliminated (Schur's complement; Triggs et
al., Bundle adjustment, a modern synthesis, 2000, section 6), and noise of the size of the residuals
is carried through the rest, draw by draw. A model has no place, direction and scale of its own, so
each draw is aligned by the best similarity before it is measured. What remains is how far streets
bend: the end of a street that few photographs hold moves most.

Memory and time are linear in the observations; those of the factorisation grow little faster with
the photographs of a street network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from vladmap.features.colmap import pycolmap
from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.colmap import SEED
from vladmap.mapping.tile_arrays import TileArrays

# Of so many draws the standard deviation of a position has an error of 6 %.
_DRAWS = 48
_AT_ONCE = 8
# The scale of Cauchy's loss in bundle adjustment, in pixels.
_CAUCHY_PX = 1.0
# The median length of a residual of two normal coordinates, in their standard deviations.
_MEDIAN_LENGTH = 1.1774
# Rounds of alignment, each with less weight for what the last one found to move.
_ROUNDS = 5
_MOST_TIMES = 4.0
# What keeps the gauge, and points on one ray, from making the equations singular.
_DAMPING = 1e-9


@dataclass(frozen=True)
class Held:
    """How n photographs of a model are held.

    `sigma` (n,) is the standard deviation of the position under the noise of the keypoints, after
    alignment, in the model's units. `left` (n, 3) is the step, after alignment, by which one more
    iteration of bundle adjustment would move the position. `noise_px` is the standard deviation of
    a keypoint's coordinate.
    """

    sigma: Array
    left: Array
    noise_px: float

    @property
    def error(self) -> Array:
        """Return the expected size of the error of each position, (n,), in the model's units."""
        return np.hypot(self.sigma, np.linalg.norm(self.left, axis=1))


@dataclass(frozen=True)
class Rays:
    """k observations, by rows of their image and point, as rays from the camera to the point.

    `ray` (k, 3) is the direction, `distance` (k,) the length, `tangents` (k, 2, 3) span the plane
    across it. `residual` (k, 2) is the measured ray less that of the model, along the tangents, in
    pixels; `focal` (k,) is pixels a radian, there in the picture.
    """

    image: Indices
    point: Indices
    ray: Array
    tangents: Array
    distance: Array
    residual: Array
    focal: Array

    def only(self, rows: Bools) -> Rays:
        """Return some of the observations."""
        return Rays(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def held_positions(
    model: pycolmap.Reconstruction, arrays: TileArrays, usable: float = np.inf
) -> Held:
    """Return how the photographs of a model are held; `arrays` are those of the model.

    Those with an error over `usable`, in the model's units, have little say in the alignment.
    Intrinsics count as known. The same model gives the same numbers.
    """
    rays = rays_of(model, arrays)
    images, points, count = len(arrays.image), len(arrays.places), len(rays.image)
    if count == 0:
        return Held(np.full(images, np.inf), np.zeros((images, 3)), 0.0)
    length = np.linalg.norm(rays.residual, axis=1)
    # Poses and points fit a part of the noise: residuals are smaller than it.
    free = max(2 * count - 3 * points - 6 * images, 1) / (2 * count)
    noise = float(np.median(length)) / _MEDIAN_LENGTH / np.sqrt(free)
    equations = _Equations.of(rays, 1.0 / (1.0 + (length / _CAUCHY_PX) ** 2), images, points)
    steps = [equations.steps(rays.residual.reshape(-1, 1))]
    # Noise of the size of each residual, in any direction (the wild bootstrap; Wu, 1986).
    size = np.maximum(length / np.sqrt(2 * free), noise)[:, None, None]
    rng = np.random.default_rng(SEED)
    for _ in range(_DRAWS // _AT_ONCE):
        drawn = size * rng.standard_normal((count, 2, _AT_ONCE))
        steps.append(equations.steps(drawn.reshape(2 * count, -1)))
    moved = _aligned(np.concatenate(steps, axis=2), arrays.centres, usable)
    return Held(np.sqrt((moved[:, :, 1:] ** 2).sum(axis=(1, 2)) / _DRAWS), moved[:, :, 0], noise)


def rays_of(model: pycolmap.Reconstruction, arrays: TileArrays) -> Rays:
    """Return the observations of a model as rays, without those that have no direction.

    `arrays` are those of the model, with images in the order of their COLMAP ids.
    """
    row = np.searchsorted(arrays.image, arrays.seen_by)
    towards = arrays.places[arrays.point] - arrays.centres[row]
    distance = np.linalg.norm(towards, axis=1)
    ray = towards / np.maximum(distance, 1e-12)[:, None]
    measured, focal = np.zeros_like(ray), np.zeros(len(row))
    ends = np.searchsorted(row, np.arange(len(arrays.image) + 1)).tolist()
    for number, image_id in enumerate(sorted(model.reg_image_ids())):
        start, end = ends[number], ends[number + 1]
        if start == end:
            continue
        image = model.image(image_id)
        camera = model.camera(image.camera_id)
        pixels = np.array([point.xy for point in image.get_observation_points2D()])
        seen = _directions(camera, pixels)
        measured[start:end] = seen @ arrays.rotations[number].T
        across, down = (
            np.linalg.norm(_directions(camera, pixels + step) - seen, axis=1)
            for step in ([1.0, 0.0], [0.0, 1.0])
        )
        focal[start:end] = 1.0 / np.maximum(np.sqrt(across * down), 1e-12)
    aside = np.where(np.abs(ray[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    across = np.cross(ray, aside)
    across /= np.maximum(np.linalg.norm(across, axis=1), 1e-12)[:, None]
    tangents = np.stack([across, np.cross(ray, across)], axis=1)
    residual = focal[:, None] * np.einsum("kij,kj->ki", tangents, measured - ray)
    rays = Rays(row, arrays.point, ray, tangents, distance, residual, focal)
    return rays.only(np.isfinite(residual).all(axis=1) & (distance > 0))


def _directions(camera: pycolmap.Camera, pixels: Array) -> Array:
    """Return the unit vectors (k, 3) that pixels (k, 2) show, in the camera's axes."""
    plane = np.asarray(camera.cam_from_img(pixels), np.float64).reshape(-1, 2)
    seen = np.column_stack([plane, np.ones(len(plane))])
    return np.asarray(seen / np.linalg.norm(seen, axis=1)[:, None])


@dataclass(frozen=True)
class _Equations:
    """Normal equations of k observations of n images, with the points eliminated.

    `of_image` (2 k, 6 n) and `of_point` (2 k, 3 p) are the derivatives of the residuals, `weight`
    (2 k,) their weights, `from_points` (6 n, 3 p) carries right-hand sides of points to images, and
    `factor` solves for the images.
    """

    images: int
    of_image: Any
    of_point: Any
    weight: Array
    from_points: Any
    factor: Any

    @classmethod
    def of(cls, rays: Rays, weight: Array, images: int, points: int) -> _Equations:
        """Return the equations; a turn of the camera moves its rays, not its position."""
        by_place = (rays.focal / rays.distance)[:, None, None] * rays.tangents
        by_turn = rays.focal[:, None, None] * np.cross(rays.tangents, rays.ray[:, None])
        of_image = _blocks(np.concatenate([-by_place, by_turn], axis=2), rays.image, images)
        of_point = _blocks(by_place, rays.point, points)
        both = np.repeat(weight, 2)
        weighted = (sparse.diags_array(both) @ of_image).T.tocsr()
        inverse = _inverse(by_place, weight, rays.point, points)
        cross = (weighted @ of_point).tocsr()
        from_points = (cross @ inverse).tocsr()
        reduced = weighted @ of_image - from_points @ cross.T
        reduced += sparse.diags_array(_DAMPING * reduced.diagonal() + 1e-12)
        factor = splu(
            reduced.tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        return cls(images, of_image, of_point, both, from_points, factor)

    def steps(self, residual: Array) -> Array:
        """Return the steps of the positions, (n, 3, s), for s sets of residuals (2 k, s)."""
        weighted = self.weight[:, None] * residual
        right = self.of_image.T @ weighted - self.from_points @ (self.of_point.T @ weighted)
        step = np.asarray(self.factor.solve(np.ascontiguousarray(right)), np.float64)
        return step.reshape(self.images, 6, -1)[:, :3]


def _inverse(by_place: Array, weight: Array, point: Indices, points: int) -> Any:
    """Return the inverse of the block-diagonal normal matrix of the points, (3 p, 3 p)."""
    square = weight[:, None, None] * np.einsum("kia,kib->kab", by_place, by_place)
    own = np.stack(
        [np.bincount(point, entry, points) for entry in square.reshape(-1, 9).T], axis=1
    ).reshape(-1, 3, 3)
    own += (_DAMPING * np.trace(own, axis1=1, axis2=2) + 1e-12)[:, None, None] * np.eye(3)
    rows = np.arange(points + 1)
    return sparse.bsr_array(
        (np.linalg.inv(own), rows[:-1], rows), shape=(3 * points, 3 * points)
    ).tocsr()


def _blocks(values: Array, column: Indices, columns: int) -> Any:
    """Return a sparse matrix (2 k, width * columns) of one block (2, width) a pair of rows."""
    count, _, width = values.shape
    return sparse.bsr_array(
        (values, column, np.arange(count + 1)), shape=(2 * count, width * columns)
    ).tocsr()


def _aligned(steps: Array, centres: Array, usable: float = np.inf) -> Array:
    """Return small steps (n, 3, s) of positions (n, 3) less the best similarity of each set.

    What moves over four times as far as usual, or further than `usable`, has little say in it: a
    street that comes loose does not move the others.
    """
    away = centres - centres.mean(axis=0)
    away = away / max(float(np.abs(away).max(initial=0.0)), 1e-12)
    x, y, z = away.T
    no, yes = np.zeros(len(x)), np.ones(len(x))
    motions = [
        (yes, no, no), (no, yes, no), (no, no, yes),
        (no, -z, y), (z, no, -x), (-y, x, no), (x, y, z),
    ]  # fmt: skip
    basis = np.stack([np.stack(motion, axis=1).ravel() for motion in motions], axis=1)
    flat = steps.reshape(len(basis), -1)
    weight, moved = np.ones(len(x)), steps
    for _ in range(_ROUNDS):
        both = np.repeat(np.sqrt(weight), 3)[:, None]
        # Of cameras on one line the turn about it moves nothing: the least of all solutions.
        motion = np.linalg.lstsq(both * basis, both * flat, rcond=1e-9)[0]
        moved = (flat - basis @ motion).reshape(steps.shape)
        square = (moved**2).sum(axis=1).mean(axis=1)
        most = min(_MOST_TIMES**2 * float(np.median(square)), usable**2)
        weight = np.minimum(1.0, most / np.maximum(square, 1e-300)) ** 2
    return moved
