"""Which photographs show the same surfaces, from what is nearest to each of their pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vladmap.simulation.camera import Array, Camera, Poses
from vladmap.simulation.city import City
from vladmap.simulation.fisheye import Fisheye, faces_of
from vladmap.simulation.render import depth_map, depths_at

FARTHEST_M = 100.0
"""What lies farther away does not count: no feature is told apart there."""

LEAST_SHARE = 0.01
"""Pairs that have less than this in common, seen from either side, are left out."""

SHRINK = 4  # pixels of a photograph, on each axis, a range is measured for

_EVERY = 3  # ranges, on each axis, a point is taken for
_CELL_M = 5.0
_RELATIVE, _ABSOLUTE_M = 0.03, 0.1  # how far a range may be from that of the same surface
_BATCH_POINTS = 400_000

Ranges = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CommonSurfaces:
    """P pairs of photographs that show the same surfaces.

    pairs: (P, 2) rows of the photographs, the lower first. shares: (P, 2), of the surfaces that
    each shows, by pixels, the share that the other shows as well. angles_deg: (P,) between the
    rays from both cameras to these surfaces, on average.
    """

    pairs: NDArray[np.int64]
    shares: Array
    angles_deg: Array


def ranges_of(city: City, pose: Poses, camera: Camera | Fisheye) -> Ranges:
    """(h, w) m from a camera at one pose to what is nearest through the centre of every SHRINK-th
    pixel on each axis; infinite in the sky and beyond FARTHEST_M."""
    small = camera.smaller(SHRINK)
    ranges: Array
    if isinstance(small, Camera):
        ranges = depth_map(city, pose, small)[0].cpu().numpy() / small.rays()[..., 2]
    else:
        faces = faces_of(small)
        ranges = np.empty((small.height, small.width))
        poses = faces.poses(pose)
        for face in range(len(poses)):
            there = faces.face == face
            depths = depths_at(city, poses[face : face + 1], faces.camera, faces.pixel[there])
            ranges[there] = depths.cpu().numpy() / faces.cosine[there]
    return np.where(ranges <= FARTHEST_M, ranges, np.inf).astype(np.float32)


def common_surfaces(
    poses: Poses,
    cameras: Sequence[Camera | Fisheye],
    ranges: Ranges,
    progress: Callable[[int], object] | None = None,
) -> CommonSurfaces:
    """The pairs among N photographs of one size that have at least LEAST_SHARE in common.

    ranges: (N, h, w) of `ranges_of`. A point that one photograph shows is shown by another if it
    appears within its frame and is there as far away as what is nearest to that camera: hidden
    surfaces do not count, nor do those that face away. progress: called with 1 a photograph.
    """
    points, shown = _points(poses, cameras, ranges)
    neighbours = _neighbours(points, shown)
    inverse = np.where(np.isfinite(ranges), 1.0 / ranges, 0.0).astype(np.float32)
    parts = []
    for row in range(len(poses)):
        others = neighbours.indices[neighbours.indptr[row] : neighbours.indptr[row + 1]]
        step = max(1, _BATCH_POINTS // points.shape[1])
        for start in range(0, len(others), step):
            some = others[start : start + step]
            seen = shown[some] & _sees(poses, cameras[row], inverse[row], row, points[some])
            parts.append(_measures(row, some, points[some], seen, shown[some], poses.centre))
        if progress is not None:
            progress(1)
    return _joined(parts, len(poses))


def _points(
    poses: Poses, cameras: Sequence[Camera | Fisheye], ranges: Ranges
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(N, M, 3) points that photographs show, relative to the first camera, and which there are."""
    half = _EVERY // 2
    sampled = ranges[:, half::_EVERY, half::_EVERY].reshape(len(ranges), -1)
    shown = np.isfinite(sampled)
    points = np.empty((*sampled.shape, 3), np.float32)
    rays = {
        camera: camera.smaller(SHRINK).rays()[half::_EVERY, half::_EVERY].reshape(-1, 3)
        for camera in set(cameras)
    }
    for row, camera in enumerate(cameras):
        local = rays[camera] * np.where(shown[row], sampled[row], 0.0)[:, None]
        points[row] = local @ poses.rotation[row] + (poses.centre[row] - poses.centre[0])
    return points, shown


def _neighbours(points: NDArray[np.float32], shown: NDArray[np.bool_]) -> csr_matrix:
    """(N, N) where two photographs show points of the same cell of space."""
    row, column = np.nonzero(shown)
    cells = np.floor(points[row, column] / _CELL_M).astype(np.int64)
    _, cell = np.unique(cells, axis=0, return_inverse=True)
    shape = (len(points), int(cell.max(initial=-1)) + 1)
    there = csr_matrix((np.ones(len(row), np.int32), (row, cell.reshape(-1))), shape)
    there.data[:] = 1
    both = csr_matrix(there @ there.T)
    both.setdiag(0)
    both.eliminate_zeros()
    both.sort_indices()
    return both


def _sees(
    poses: Poses,
    camera: Camera | Fisheye,
    inverse: NDArray[np.float32],
    row: int,
    points: NDArray[np.float32],
) -> NDArray[np.bool_]:
    """(K, M) whether the photograph `row` shows each of (K, M, 3) points."""
    rotation = poses.rotation[row].astype(np.float32)
    local = (points - (poses.centre[row] - poses.centre[0]).astype(np.float32)) @ rotation.T
    height, width = inverse.shape
    distance = np.linalg.norm(local, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = np.moveaxis(camera.smaller(SHRINK).pixels(local), -1, 0)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (distance > 0)
        at = np.nonzero(inside)
        x, y, true = x[at] - 0.5, y[at] - 0.5, 1.0 / distance[at]
    left, top = np.floor(x), np.floor(y)
    corners = np.stack(
        [
            inverse[
                np.clip(top + down, 0, height - 1).astype(np.int64),
                np.clip(left + right, 0, width - 1).astype(np.int64),
            ]
            for down in (0, 1)
            for right in (0, 1)
        ]
    )
    across, down = x - left, y - top
    weights = np.stack(
        [(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across]
    )
    # The inverse of the range is all but linear across a surface; at its borders, one of the four
    # measured ranges may be its own.
    measured = np.concatenate([(corners * weights).sum(0, keepdims=True), corners])
    allowed = true * (_RELATIVE + _ABSOLUTE_M * true)
    seen = np.zeros(distance.shape, bool)
    seen[at] = (np.abs(measured - true) <= allowed).any(0)
    return seen


def _measures(
    row: int,
    others: NDArray[np.int32],
    points: NDArray[np.float32],
    seen: NDArray[np.bool_],
    shown: NDArray[np.bool_],
    centres: Array,
) -> Array:
    """(K, 4): the other, `row`, the share of the other's surfaces that is seen, the mean angle."""
    places = (centres - centres[0]).astype(np.float32)
    which, where = np.nonzero(seen)
    at = points[which, where]
    first, second = at - places[others[which]], at - places[row]
    cosine = (first * second).sum(1) / np.maximum(
        np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1), 1e-9
    )
    angles = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
    count = np.bincount(which, minlength=len(others))
    total = np.bincount(which, weights=angles, minlength=len(others))
    share = count / np.maximum(shown.sum(1), 1)
    return np.column_stack([others, np.full(len(others), row), share, total / np.maximum(count, 1)])


def _joined(parts: list[Array], count: int) -> CommonSurfaces:
    """Pairs from the measures of both directions."""
    rows = np.concatenate([np.zeros((0, 4)), *parts])
    shown, seen_by = rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64)
    low, high = np.minimum(shown, seen_by), np.maximum(shown, seen_by)
    keys, place = np.unique(low * count + high, return_inverse=True)
    place = place.reshape(-1)
    shares, angles = np.zeros((len(keys), 2)), np.zeros((len(keys), 2))
    side = (shown > seen_by).astype(np.int64)
    shares[place, side], angles[place, side] = rows[:, 2], rows[:, 3]
    kept = shares.min(1, initial=1.0) >= LEAST_SHARE
    weight = shares / np.maximum(shares.sum(1, keepdims=True), 1e-9)
    pairs = np.stack(np.divmod(keys, count), 1)
    return CommonSurfaces(pairs[kept], shares[kept], (angles * weight).sum(1)[kept])
