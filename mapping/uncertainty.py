"""How exactly the observations of a model hold its photographs: the covariance of their positions.

Bundle adjustment leaves the normal equations of all poses and points. What noise of the keypoints
does to the positions follows from them: the points are eliminated (Schur's complement; Triggs et
al., Bundle adjustment, a modern synthesis, 2000, section 6), and noise of the size of the residuals
is carried through the rest, draw by draw. A model has no place, direction and scale of its own, so
each draw is aligned by the best similarity before it is measured. What remains is how far streets
bend: the end of a street that few photographs hold moves most.

Time is linear in the observations, of which a bounded number is at work at once; time and memory of
the factorisation grow little faster than the photographs of a street network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from vladmap.features.colmap import pycolmap
from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.colmap import SEED
from vladmap.mapping.symmetric import solve_symmetric
from vladmap.mapping.tile_arrays import TileArrays

# Of so many draws the standard deviation of a position has an error of 4 %.
_DRAWS = 96
# Observations at once: some 200 MB.
_AT_ONCE = 50_000
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


@dataclass(frozen=True)
class Measured:
    """What k observations measured, by point: rows of image and point, both (k,), the unit vector
    (k, 3) that each saw, in the model's frame, and its `focal` as of Rays."""

    image: Indices
    point: Indices
    direction: Array
    focal: Array

    def parts(self) -> Iterator[slice]:
        """Yield rows, a bounded number at a time, all of a point together."""
        ends = np.searchsorted(
            self.point, self.point[_AT_ONCE - 1 :: _AT_ONCE], side="right"
        ).tolist()
        for start, end in zip([0, *ends], [*ends, len(self.point)], strict=True):
            if start < end:
                yield slice(start, end)

    def rays(self, rows: slice, arrays: TileArrays) -> Rays:
        """Return some of the observations as rays of the model of `arrays`."""
        image, point, focal = self.image[rows], self.point[rows], self.focal[rows]
        towards = arrays.places[point] - arrays.centres[image]
        distance = np.maximum(np.linalg.norm(towards, axis=1), 1e-12)
        ray = towards / distance[:, None]
        aside = np.where(np.abs(ray[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
        across = np.cross(ray, aside)
        across /= np.maximum(np.linalg.norm(across, axis=1), 1e-12)[:, None]
        tangents = np.stack([across, np.cross(ray, across)], axis=1)
        off = np.einsum("kij,kj->ki", tangents, self.direction[rows] - ray)
        return Rays(image, point, ray, tangents, distance, focal[:, None] * off, focal)


def held_positions(
    model: pycolmap.Reconstruction, arrays: TileArrays, usable: float = np.inf
) -> Held:
    """Return how the photographs of a model are held; `arrays` are those of the model.

    Those with an error over `usable`, in the model's units, have little say in the alignment.
    Intrinsics count as known. The same model gives the same numbers.
    """
    seen = measured_by(model, arrays)
    images, count = len(arrays.image), len(seen.point)
    if count == 0:
        return Held(np.full(images, np.inf), np.zeros((images, 3)), 0.0)
    lengths = [np.linalg.norm(seen.rays(rows, arrays).residual, axis=1) for rows in seen.parts()]
    # Poses and points fit a part of the noise: residuals are smaller than it.
    free = max(2 * count - 3 * len(arrays.places) - 6 * images, 1) / (2 * count)
    noise = float(np.median(np.concatenate(lengths))) / _MEDIAN_LENGTH / np.sqrt(free)
    rng = np.random.default_rng(SEED)
    matrix = sparse.csr_array((6 * images, 6 * images))
    right = np.zeros((6 * images, 1 + _DRAWS))
    for rows, length in zip(seen.parts(), lengths, strict=True):
        rays = seen.rays(rows, arrays)
        # Noise of the size of each residual, in any direction (the wild bootstrap; Wu, 1986).
        size = np.maximum(length / np.sqrt(2 * free), noise)[:, None, None]
        drawn = size * rng.standard_normal((len(length), 2, _DRAWS))
        residuals = np.concatenate([rays.residual[:, :, None], drawn], axis=2)
        own, of_own = _reduced(rays, 1.0 / (1.0 + (length / _CAUCHY_PX) ** 2), residuals, images)
        matrix = matrix + own
        right += of_own
    steps = _solved(matrix, right).reshape(images, 6, -1)[:, :3]
    moved = _aligned(steps, arrays.centres, usable)
    return Held(np.sqrt((moved[:, :, 1:] ** 2).sum(axis=(1, 2)) / _DRAWS), moved[:, :, 0], noise)


def measured_by(model: pycolmap.Reconstruction, arrays: TileArrays) -> Measured:
    """Return what a model's observations measured, without those that have no direction.

    `arrays` are those of the model, with images in the order of their COLMAP ids.
    """
    row = np.searchsorted(arrays.image, arrays.seen_by)
    direction, focal = np.zeros((len(row), 3)), np.zeros(len(row))
    ends = np.searchsorted(row, np.arange(len(arrays.image) + 1)).tolist()
    for number, image_id in enumerate(sorted(model.reg_image_ids())):
        start, end = ends[number], ends[number + 1]
        if start == end:
            continue
        image = model.image(image_id)
        camera = model.camera(image.camera_id)
        pixels = np.array([point.xy for point in image.get_observation_points2D()])
        seen = _directions(camera, pixels)
        direction[start:end] = seen @ arrays.rotations[number].T
        across, down = (
            np.linalg.norm(_directions(camera, pixels + step) - seen, axis=1)
            for step in ([1.0, 0.0], [0.0, 1.0])
        )
        focal[start:end] = 1.0 / np.maximum(np.sqrt(across * down), 1e-12)
    order = np.lexsort((row, arrays.point))
    order = order[np.isfinite(direction[order]).all(axis=1) & np.isfinite(focal[order])]
    return Measured(row[order], arrays.point[order], direction[order], focal[order])


def _directions(camera: pycolmap.Camera, pixels: Array) -> Array:
    """Return the unit vectors (k, 3) that pixels (k, 2) show, in the camera's axes."""
    plane = np.asarray(camera.cam_from_img(pixels), np.float64).reshape(-1, 2)
    seen = np.column_stack([plane, np.ones(len(plane))])
    return np.asarray(seen / np.linalg.norm(seen, axis=1)[:, None])


def _reduced(
    rays: Rays, weight: Array, residuals: Array, images: int
) -> tuple[sparse.csr_array, Array]:
    """Return the normal equations of some points' observations, with the points eliminated.

    `weight` (k,) are those of the observations, `residuals` (k, 2, s) sets of residuals. The
    matrix is (6 n, 6 n), position and turn of each image; the right-hand sides are (6 n, s).
    """
    first = int(rays.point[0])
    point, points = rays.point - first, int(rays.point[-1]) - first + 1
    by_place = (rays.focal / rays.distance)[:, None, None] * rays.tangents
    by_turn = rays.focal[:, None, None] * np.cross(rays.tangents, rays.ray[:, None])
    of_image = _blocks(np.concatenate([-by_place, by_turn], axis=2), rays.image, images)
    of_point = _blocks(by_place, point, points)
    both = np.repeat(weight, 2)
    weighted = (sparse.diags_array(both) @ of_image).T.tocsr()
    cross = (weighted @ of_point).tocsr()
    from_points = (cross @ _inverse(by_place, weight, point, points)).tocsr()
    flat = both[:, None] * residuals.reshape(len(both), -1)
    right = of_image.T @ flat - from_points @ (of_point.T @ flat)
    return weighted @ of_image - from_points @ cross.T, np.asarray(right)


def _solved(matrix: sparse.csr_array, right: Array) -> Array:
    """Return the solutions of the normal equations, (6 n, s)."""
    damping = sparse.diags_array(_DAMPING * matrix.diagonal() + 1e-12)
    return solve_symmetric((matrix + damping).tocsc(), right)


def _inverse(by_place: Array, weight: Array, point: Indices, points: int) -> sparse.csr_array:
    """Return the inverse of the block-diagonal normal matrix of the points, (3 p, 3 p)."""
    square = weight[:, None, None] * np.einsum("kia,kib->kab", by_place, by_place)
    own = np.stack(
        [np.bincount(point, entry, points) for entry in square.reshape(-1, 9).T], axis=1
    ).reshape(-1, 3, 3)
    own += (_DAMPING * np.trace(own, axis1=1, axis2=2) + 1e-12)[:, None, None] * np.eye(3)
    rows = np.arange(points + 1)
    blocks = (np.linalg.inv(own), rows[:-1], rows)
    return sparse.csr_array(sparse.bsr_array(blocks, shape=(3 * points, 3 * points)))


def _blocks(values: Array, column: Indices, columns: int) -> sparse.csr_array:
    """Return a sparse matrix (2 k, width * columns) of one block (2, width) a pair of rows."""
    count, _, width = values.shape
    blocks = (values, column, np.arange(count + 1))
    return sparse.csr_array(sparse.bsr_array(blocks, shape=(2 * count, width * columns)))


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
