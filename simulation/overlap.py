"""Which photographs show the same surfaces, from the surface that each of their pixels shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vladmap.simulation.camera import Array, Camera, Poses
from vladmap.simulation.city import City
from vladmap.simulation.fisheye import Fisheye, faces_of
from vladmap.simulation.render import quads_seen

FARTHEST_M = 100.0
"""What lies farther away does not count: no feature is told apart there."""

LEAST_SHARE = 0.01
"""Pairs that have less than this in common, seen from either side, are left out."""

SHRINK = 4  # pixels of a photograph, on each axis, one surface is noted for

_EVERY = 3  # of these, on each axis, a point is taken
_CELL_M = 5.0
_SAME_M = 0.01  # how far a point may be from the plane of its own surface
_BATCH_POINTS = 400_000

Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Sight:
    """The surfaces that a photograph shows. index: (h, w) of the surface at the centre of every
    SHRINK-th pixel on each axis, -1 where there is none. planes: (K, 4), of each surface its unit
    normal and its distance from the camera along it, metres; negative, as it faces the camera."""

    index: NDArray[np.int16]
    planes: NDArray[np.float32]

    def ranges(self, rays: Array) -> Array:
        """(h, w) m to the surfaces along (h, w, 3) unit rays, in the planes' frame; or infinite."""
        planes = np.concatenate([self.planes, [[0.0, 0.0, 1.0, np.inf]]])[self.index]
        slope = (planes[..., :3] * rays).sum(-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            ranges = planes[..., 3] / slope
        return np.where((ranges > 0) & (ranges <= FARTHEST_M), ranges, np.inf)


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


def sight_of(city: City, pose: Poses, camera: Camera | Fisheye) -> Sight:
    """What a camera at one pose shows of a city; distant scenery is no surface."""
    small = camera.smaller(SHRINK)
    if isinstance(small, Camera):
        seen = quads_seen(city, pose, small)
    else:
        faces = faces_of(small)
        poses = faces.poses(pose)
        each = [quads_seen(city, poses[k : k + 1], faces.camera) for k in range(len(poses))]
        seen = faces.nearest(torch.stack(each))
    seen = torch.where(seen >= city.scenery, seen, -1).cpu()
    quads, index = torch.unique(seen, return_inverse=True)
    skipped = int(len(quads) > 0 and int(quads[0]) < 0)
    quads = quads[skipped:].to(city.quads.corner.device)
    normal = torch.linalg.cross(city.quads.axis_u[quads], city.quads.axis_v[quads])
    away = city.quads.corner[quads] - torch.from_numpy(pose.centre[0]).to(normal.device)
    planes = torch.cat([normal, (normal * away).sum(1, keepdim=True)], 1)
    return Sight((index - skipped).numpy().astype(np.int16), planes.float().cpu().numpy())


def common_surfaces(
    poses: Poses,
    cameras: Sequence[Camera | Fisheye],
    sights: Sequence[Sight],
    progress: Callable[[int], object] | None = None,
) -> CommonSurfaces:
    """The pairs among N photographs of one size that have at least LEAST_SHARE in common.

    sights: of each photograph, as of `sight_of`, in the frame of the poses. A point that one
    photograph shows is shown by another if it appears within its frame, and one of the four
    surfaces noted around there is the point's own: what is hidden does not count, nor does what
    faces away. progress: called with 1 a photograph.
    """
    points, shown = _points(poses, cameras, sights)
    neighbours = _neighbours(points, shown)
    parts = []
    for row, sight in enumerate(sights):
        others = neighbours.indices[neighbours.indptr[row] : neighbours.indptr[row + 1]]
        step = max(1, _BATCH_POINTS // points.shape[1])
        for start in range(0, len(others), step):
            some = others[start : start + step]
            seen = shown[some] & _sees(poses, cameras[row], sight, row, points[some])
            parts.append(_measures(row, some, points[some], seen, shown[some], poses.centre))
        if progress is not None:
            progress(1)
    return _joined(parts, len(poses))


def _points(
    poses: Poses, cameras: Sequence[Camera | Fisheye], sights: Sequence[Sight]
) -> tuple[NDArray[np.float32], Flags]:
    """(N, M, 3) points that photographs show, relative to the first camera, and which there are."""
    part = (slice(_EVERY // 2, None, _EVERY),) * 2
    rays = {camera: camera.smaller(SHRINK).rays()[part] for camera in set(cameras)}
    points: list[NDArray[np.float32]] = []
    shown: list[Flags] = []
    for row, (camera, sight) in enumerate(zip(cameras, sights, strict=True)):
        turned = rays[camera] @ poses.rotation[row]
        ranges = Sight(sight.index[part], sight.planes).ranges(turned)
        there = np.isfinite(ranges)
        away = turned * np.where(there, ranges, 0.0)[..., None]
        centre = poses.centre[row] - poses.centre[0]
        points.append((away + centre).reshape(-1, 3).astype(np.float32))
        shown.append(there.reshape(-1))
    return np.stack(points), np.stack(shown)


def _neighbours(points: NDArray[np.float32], shown: Flags) -> csr_matrix:
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
    sight: Sight,
    row: int,
    points: NDArray[np.float32],
) -> Flags:
    """(K, M) whether the photograph `row` shows each of (K, M, 3) points."""
    away = points - (poses.centre[row] - poses.centre[0]).astype(np.float32)
    height, width = sight.index.shape
    with np.errstate(invalid="ignore", divide="ignore"):
        local = away @ poses.rotation[row].T.astype(np.float32)
        x, y = np.moveaxis(camera.smaller(SHRINK).pixels(local), -1, 0)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    inside &= np.linalg.norm(away, axis=-1) <= FARTHEST_M
    at = np.nonzero(inside)
    place, left, top = away[at], np.floor(x[at] - 0.5), np.floor(y[at] - 0.5)
    # Of the sky, a plane that nothing lies on.
    planes = np.concatenate([sight.planes, np.full((1, 4), 1e9, np.float32)])
    own = np.zeros(len(place), bool)
    for down in (0, 1):
        for right in (0, 1):
            index = sight.index[
                np.clip(top + down, 0, height - 1).astype(np.int64),
                np.clip(left + right, 0, width - 1).astype(np.int64),
            ]
            plane = planes[index]
            own |= np.abs((plane[:, :3] * place).sum(1) - plane[:, 3]) <= _SAME_M
    seen = np.zeros(inside.shape, bool)
    seen[at] = own
    return seen


def _measures(
    row: int,
    others: NDArray[np.int32],
    points: NDArray[np.float32],
    seen: Flags,
    shown: Flags,
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
