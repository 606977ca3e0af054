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

# A pair is a mere rotation if this share of its points lie this near, over the error that an
# inlier may have, to where a rotation takes them; a pair of fewer points shows nothing. In small
# pictures a way past a wall looks more like a turn, and keypoints err by fewer pixels.
_TURN_SHARE = 0.8
_TURN_ERROR = 0.75
_SMALLEST_SHARE = 0.5
_MIN_ROWS = 8
_MAX_ROWS = 48
# Focal lengths over the model's: a rotation seen through a wrong one looks like a translation.
_FOCAL_FACTORS = tuple(1.1**step for step in range(-5, 6))
_FOCAL_HALVINGS = 4
_FOCAL_PAIRS = 400
_ROUNDS = 4


def turning_views(
    views: Sequence[TwoView], features: Mapping[str, LocalFeatures], cameras: Mapping[str, Camera]
) -> Bools:
    """Which verified pairs, (n,) bool, one rotation explains: they show no depth.

    `features` and `cameras` are by image id. A pair of few inliers shows none either.
    """
    ids = sorted({image_id for view in views for image_id in (view.image_id_a, view.image_id_b)})
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    size = np.array([len(view.inliers) for view in views], np.int64)
    ends: list[Indices] = []
    pixels: list[Array] = []
    for side, name in enumerate(("image_id_a", "image_id_b")):
        images = [getattr(view, name) for view in views]
        ends.append(np.repeat([row_of[image_id] for image_id in images], size).astype(np.int64))
        found = [
            features[image_id].keypoints[view.inliers[:, side], :2]
            for image_id, view in zip(images, views, strict=True)
        ]
        pixels.append(np.concatenate([np.zeros((0, 2)), *found]).astype(np.float64))
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
    """Which pairs of images, by increasing rows, a rotation explains; the pair of each of n rows.

    `cameras` are of the images, the others of n points that two images see.
    """
    _, of_pair, size = np.unique(
        image_a * len(cameras) + image_b, return_inverse=True, return_counts=True
    )
    if len(of_pair) == 0:
        return np.zeros(0, bool), of_pair
    sample = _sample(of_pair, size)
    kinds = _Kinds(cameras)

    def shares(factor: float, rows: Indices) -> Array:
        """What share of its points a rotation explains at a focal length, of each pair in rows."""
        _, group, count = np.unique(of_pair[rows], return_inverse=True, return_counts=True)
        first, _ = kinds.rays(image_a[rows], pixel_a[rows], factor)
        second, bound = kinds.rays(image_b[rows], pixel_b[rows], factor)
        error = _rotation_errors(first, second, group, len(count), bound)
        near = (error <= _TURN_ERROR * bound).astype(np.float64)
        return np.bincount(group, near, len(count)) / count

    # One focal length for all: the one under which most of what is seen is a rotation.
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
    """Rows, evenly spaced, of which no pair has more than _MAX_ROWS."""
    order = np.argsort(of_pair, kind="stable")
    rank = np.arange(len(order)) - np.repeat(np.cumsum(size) - size, size)
    total = size[of_pair[order]]
    wanted = np.minimum(total, _MAX_ROWS)
    return order[(rank * wanted) // total != ((rank - 1) * wanted) // total]


class _Kinds:
    """The cameras of images by rows, equal ones once."""

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
        """Unit rays (n, 3) of pixels in their images' cameras, the focal lengths times `factor`,
        NaN where there is none; and the angle, in radians, by which a keypoint may err."""
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
    """Radians between rays `second` and those of `first` under the best rotation of each group.

    Kabsch's solution in the mean, reweighted by Cauchy's function of error over `scale`.
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
        # A reflection brings them nearer still, but no camera turns into its mirror image.
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
