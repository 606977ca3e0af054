"""Which pairs of images a rotation of the camera explains: they show no depth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from vladmap.features.base import LocalFeatures
from vladmap.features.colmap import pycolmap
from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.camera import MAX_ERROR_LONG_SIDE_PX, Camera, max_error_px
from vladmap.mapping.two_view import TwoView

# A rotation explains a pair if it brings this share of its points closer together than this share
# of the error bound of inliers. A pair of fewer than _MIN_ROWS points shows no depth either. In
# small pictures a motion past a wall resembles a rotation more, and keypoints are off by fewer
# pixels: there the bound is smaller, down to _SMALLEST_SHARE of it.
_TURN_SHARE = 0.8
_TURN_ERROR = 0.75
_SMALLEST_SHARE = 0.5
_MIN_ROWS = 8
_MAX_ROWS = 48
# Focal lengths to try, over the model's: under a wrong one a rotation looks like a translation.
_FOCAL_FACTORS = tuple(1.1**step for step in range(-5, 6))
_FOCAL_HALVINGS = 4
_FOCAL_PAIRS = 400
_ROUNDS = 4


def turning_views(
    views: Sequence[TwoView], features: Mapping[str, LocalFeatures], cameras: Mapping[str, Camera]
) -> Bools:
    """Return which verified pairs, (n,), a rotation of the camera explains: they show no depth.

    `features` and `cameras` are by image id. A pair of fewer than eight inliers counts as such.
    """
    ids = sorted({image_id for view in views for image_id in (view.image_id_a, view.image_id_b)})
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    size = np.array([len(view.inliers) for view in views], np.int64)
    ends: list[Indices] = []
    pixels: list[Array] = []
    for side, name in enumerate(("image_id_a", "image_id_b")):
        images = [getattr(view, name) for view in views]
        ends.append(np.repeat([row_of[image_id] for image_id in images], size).astype(np.int64))
        located = [
            features[image_id].keypoints[view.inliers[:, side], :2]
            for image_id, view in zip(images, views, strict=True)
        ]
        pixels.append(np.concatenate([np.zeros((0, 2)), *located]).astype(np.float64))
    turns, of_pair = explained_by_rotation(
        [cameras[image_id].to_colmap() for image_id in ids], ends[0], ends[1], pixels[0], pixels[1]
    )
    explained = np.ones(len(views), bool)
    explained[np.repeat(np.arange(len(views)), size)] = turns[of_pair]
    return explained


def explained_by_rotation(
    cameras: Sequence[pycolmap.Camera],
    image_a: Indices,
    image_b: Indices,
    pixel_a: Array,
    pixel_b: Array,
) -> tuple[Bools, Indices]:
    """Return which pairs of images a rotation explains, (m,), and the pair of each point, (n,).

    `cameras` are those of the images. The other arrays describe n points that two images see: the
    rows of both images, and the pixels (n, 2) in both. Pairs are in the order of their rows.
    """
    _, of_pair, size = np.unique(
        image_a * len(cameras) + image_b, return_inverse=True, return_counts=True
    )
    if len(of_pair) == 0:
        return np.zeros(0, bool), of_pair
    sample = _sample(of_pair, size)
    kinds = _Kinds(cameras)

    def shares(factor: float, rows: Indices) -> Array:
        """Return the share of its points that a rotation explains, of each pair in `rows`."""
        _, group, count = np.unique(of_pair[rows], return_inverse=True, return_counts=True)
        first, _ = kinds.rays(image_a[rows], pixel_a[rows], factor)
        second, bound = kinds.rays(image_b[rows], pixel_b[rows], factor)
        error = _rotation_errors(first, second, group, len(count), bound)
        near = (error <= _TURN_ERROR * bound).astype(np.float64)
        return np.bincount(group, near, len(count)) / count

    # One focal length for all pairs: the one under which rotations explain most of them.
    chosen = np.unique(np.linspace(0, len(size) - 1, _FOCAL_PAIRS).astype(np.int64))
    few = sample[np.isin(of_pair[sample], chosen)]

    @cache
    def turning(factor: float) -> float:
        return float(shares(factor, few) ** 4 @ size[chosen])

    best = max(_FOCAL_FACTORS, key=turning)
    step = 1.1
    for _ in range(_FOCAL_HALVINGS):
        step = math.sqrt(step)
        best = max((best, best / step, best * step), key=turning)
    return (shares(best, sample) >= _TURN_SHARE) | (size < _MIN_ROWS), of_pair


def _sample(of_pair: Indices, size: Indices) -> Indices:
    """Return evenly spaced rows, at most _MAX_ROWS of each pair."""
    order = np.argsort(of_pair, kind="stable")
    rank = np.arange(len(order)) - np.repeat(np.cumsum(size) - size, size)
    total = size[of_pair[order]]
    wanted = np.minimum(total, _MAX_ROWS)
    return order[(rank * wanted) // total != ((rank - 1) * wanted) // total]


class _Kinds:
    """The distinct cameras of images."""

    def __init__(self, cameras: Sequence[pycolmap.Camera]) -> None:
        known: dict[tuple[object, ...], int] = {}
        self._cameras: list[pycolmap.Camera] = []
        of_image = []
        for camera in cameras:
            key = (camera.model_name, camera.width, camera.height, *camera.params)
            if key not in known:
                known[key] = len(known)
                self._cameras.append(camera)
            of_image.append(known[key])
        self._of_image = np.array(of_image, np.int64)

    def rays(self, image: Indices, pixel: Array, factor: float) -> tuple[Array, Array]:
        """Return unit rays (n, 3) of pixels, and the angle in radians by which each may be off.

        Focal lengths are multiplied by `factor`. A pixel without a ray gives NaN.
        """
        rays = np.zeros((len(image), 3))
        bound = np.ones(len(rays))
        kind = self._of_image[image]
        for number, known in enumerate(self._cameras):
            camera = pycolmap.Camera(known.todict())
            if not camera.is_spherical():
                params = np.array(camera.params)
                params[list(camera.focal_length_idxs())] *= factor
                camera.params = params.tolist()
            rows = kind == number
            rays[rows] = camera.cam_ray_from_img(pixel[rows])
            long_side = max(camera.width, camera.height)
            size = long_side / MAX_ERROR_LONG_SIDE_PX
            pixels = max_error_px(long_side) * min(1.0, max(_SMALLEST_SHARE, size))
            bound[rows] = pixels / camera.mean_focal_length()
        return rays, bound


def _rotation_errors(
    first: Array, second: Array, group: Indices, groups: int, scale: Array
) -> Array:
    """Return the angles (n,) in radians between `second` and `first` after the best rotation.

    `group` (n,) is the pair of each ray. The rotation of a pair is Kabsch's least-squares solution
    (Acta Cryst. A 32, 1976), iteratively reweighted by a Cauchy function of the error over `scale`.
    """
    known = np.asarray(np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1))
    products = np.where(known[:, None, None], second[:, :, None] * first[:, None, :], 0.0)
    weight = known.astype(np.float64)
    error = np.full(len(first), np.inf)
    for _ in range(_ROUNDS):
        covariance = np.stack(
            [
                np.bincount(group, weight * products[:, row, column], groups)
                for row in range(3)
                for column in range(3)
            ],
            axis=1,
        ).reshape(-1, 3, 3)
        u, _, vt = np.linalg.svd(covariance)
        # The best orthogonal matrix may be a reflection, which is no rotation of a camera.
        mirrored = np.flatnonzero(np.linalg.det(u @ vt) < 0)
        u[mirrored, :, 2] *= -1.0
        turned = np.einsum("nij,nj->ni", (u @ vt)[group], first)
        error = np.arctan2(
            np.linalg.norm(np.cross(turned, second), axis=1),
            np.einsum("ni,ni->n", turned, second),
        )
        error = np.where(known, error, np.inf)
        weight = 1.0 / (1.0 + (error / scale) ** 2)
    return error
