"""Evidence: which images of a model are held by points that parallax has placed.

A mapper registers an image on a handful of points, and a camera that only turns on its tripod gives
matches without end and no depth: what the mapper then triangulates is made up. The angle between
two rays of a model does not tell, for a rotation read as a translation has such angles too. What
tells is whether the keypoints themselves need a translation: a pair whose rays one rotation brings
together, at some focal length near the model's, shows no parallax, whatever the model says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vladmap.features.base import LocalFeatures
from vladmap.features.colmap import pycolmap
from vladmap.mapping import reasons as why
from vladmap.mapping.camera import MAX_ERROR_LONG_SIDE_PX, Camera, max_error_px
from vladmap.mapping.graph import connected_components
from vladmap.mapping.two_view import TwoView

MIN_POINTS = 15
"""Points with parallax that an image must see to be registered: as many as a verified pair."""

# Two rays that meet at less are all but parallel: their point's depth is noise. COLMAP's own bound.
_MIN_ANGLE = np.radians(1.5)
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
# Of a long track so many observations, evenly spaced, are compared with each other.
_MAX_TRACK = 16

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Kept:
    """Models that hold, most images first, and why each other image (its name) was taken out."""

    models: list[pycolmap.Reconstruction]
    dropped: dict[str, str]


@dataclass(frozen=True)
class _Observations:
    """n observations that fit their model: row of the image, row of the point, pixel (n, 2)."""

    names: list[str]
    numbers: list[int]
    image: Indices
    point: Indices
    pixel: Array
    places: Array
    centres: Array


@dataclass(frozen=True)
class _Pairs:
    """m pairs of observations of one point: rows of both, rows of their images, and the point."""

    first: Indices
    second: Indices
    image_a: Indices
    image_b: Indices
    point: Indices


def keep_evident(models: Sequence[pycolmap.Reconstruction], min_model_size: int) -> Kept:
    """Take out of models, in place, the images without evidence, until all that remain have it.

    An image stays if it sees at least MIN_POINTS points within its error bound whose rays meet at a
    real angle in a pair that is no mere rotation. What falls apart without the images taken out
    becomes models of its own; one of fewer than `min_model_size` images is dropped.
    """
    kept: list[pycolmap.Reconstruction] = []
    dropped: dict[str, str] = {}
    for model in models:
        parts, reasons = _evident_parts(model, min_model_size)
        kept.extend(parts)
        dropped |= reasons
    for model in kept:
        for number in model.reg_image_ids():
            dropped.pop(model.image(number).name, None)
    kept.sort(key=lambda model: -model.num_reg_images())
    return Kept(kept, dict(sorted(dropped.items())))


def _evident_parts(
    model: pycolmap.Reconstruction, min_model_size: int
) -> tuple[list[pycolmap.Reconstruction], dict[str, str]]:
    seen = _observations(model)
    pairs = _meeting_pairs(seen)
    proven = _moved(model, seen, pairs)
    alive = np.ones(len(seen.names), bool)
    reasons: dict[str, str] = {}
    while True:
        count = _evident_points(seen, pairs, proven, alive)
        lost = alive & (count < MIN_POINTS)
        if not lost.any():
            break
        claimed = _evident_points(seen, pairs, np.ones(len(proven), bool), alive)
        for row in np.flatnonzero(lost):
            reasons[seen.names[row]] = _reason(int(count[row]), int(claimed[row]))
        alive &= ~lost
    label = _components(seen, pairs, proven, alive)
    parts = []
    for root in np.unique(label[alive]):
        members = alive & (label == root)
        if members.sum() < min_model_size:
            for row in np.flatnonzero(members):
                reasons[seen.names[row]] = (
                    f"{why.SMALL_MODEL} {members.sum()} of the {min_model_size} images "
                    "that it takes"
                )
            continue
        parts.append(_only(model, seen, members))
    return parts, reasons


def _reason(count: int, claimed: int) -> str:
    if claimed >= MIN_POINTS:
        return (
            f"{why.NO_PARALLAX}: a turn on the spot explains what it shares with others, {count} "
            f"points have a depth of their own, {MIN_POINTS} are needed"
        )
    return f"{why.FEW_POINTS}: {count} points with parallax, {MIN_POINTS} are needed"


def _only(
    model: pycolmap.Reconstruction, seen: _Observations, members: Mask
) -> pycolmap.Reconstruction:
    """The model with `members` alone registered; the same one where these are all."""
    if members.all():
        return model
    part = pycolmap.Reconstruction(model)
    for row in np.flatnonzero(~members):
        part.deregister_frame(part.image(seen.numbers[row]).frame_id)
    return part


def _observations(model: pycolmap.Reconstruction) -> _Observations:
    numbers = sorted(model.reg_image_ids())
    ids = np.array(sorted(model.points3D), np.int64)
    places = np.array([model.point3D(number).xyz for number in ids.tolist()]).reshape(-1, 3)
    images, points, pixels, centres = [], [], [], []
    for row, number in enumerate(numbers):
        image = model.image(number)
        camera = model.camera(image.camera_id)
        pose = image.cam_from_world()
        centres.append(pose.tgt_origin_in_src())
        found = image.get_observation_points2D()
        if len(found) == 0:
            continue
        pixel = np.array([point.xy for point in found])
        at = np.searchsorted(ids, [point.point3D_id for point in found])
        in_camera = pose * places[at]
        error = np.linalg.norm(camera.img_from_cam(in_camera) - pixel, axis=1)
        fits = (error <= max_error_px(max(camera.width, camera.height))) & (
            (in_camera[:, 2] > 0) | camera.is_spherical()
        )
        images.append(np.full(int(fits.sum()), row))
        points.append(at[fits])
        pixels.append(pixel[fits])
    none = np.zeros(0, np.int64)
    return _Observations(
        [model.image(number).name for number in numbers],
        numbers,
        np.concatenate([none, *images]),
        np.concatenate([none, *points]),
        np.concatenate([np.zeros((0, 2)), *pixels]),
        places,
        np.array(centres).reshape(-1, 3),
    )


def _meeting_pairs(seen: _Observations) -> _Pairs:
    """Of each point, the pairs among its observations, or among _MAX_TRACK of many."""
    order = np.lexsort((seen.image, seen.point))
    _, start, length = np.unique(seen.point[order], return_index=True, return_counts=True)
    firsts, seconds = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for size in np.unique(length):
        if size < 2:
            continue
        taken = np.unique(np.linspace(0, size - 1, min(size, _MAX_TRACK)).astype(np.int64))
        rows = order[start[length == size, None] + taken]
        a, b = np.triu_indices(len(taken), 1)
        firsts.append(rows[:, a].ravel())
        seconds.append(rows[:, b].ravel())
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    apart = seen.image[first] != seen.image[second]
    first, second = first[apart], second[apart]
    return _Pairs(first, second, seen.image[first], seen.image[second], seen.point[first])


def _moved(model: pycolmap.Reconstruction, seen: _Observations, pairs: _Pairs) -> Mask:
    """Which pairs of observations place their point: rays at a real angle, in two images between
    which the camera moved."""
    to_a = seen.places[pairs.point] - seen.centres[pairs.image_a]
    to_b = seen.places[pairs.point] - seen.centres[pairs.image_b]
    angle = np.arctan2(
        np.linalg.norm(np.cross(to_a, to_b), axis=1), np.einsum("ni,ni->n", to_a, to_b)
    )
    cameras = [model.camera(model.image(number).camera_id) for number in seen.numbers]
    turns, of_pair = _turns(
        cameras, pairs.image_a, pairs.image_b, seen.pixel[pairs.first], seen.pixel[pairs.second]
    )
    return np.asarray((angle >= _MIN_ANGLE) & ~turns[of_pair], np.bool_)


def turning_views(
    views: Sequence[TwoView], features: Mapping[str, LocalFeatures], cameras: Mapping[str, Camera]
) -> Mask:
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
    turns, of_pair = _turns(
        [cameras[image_id].to_colmap() for image_id in ids], ends[0], ends[1], pixels[0], pixels[1]
    )
    explained = np.ones(len(views), bool)
    explained[np.repeat(np.arange(len(views)), size)] = turns[of_pair]
    return explained


def _turns(
    cameras: Sequence[pycolmap.Camera],
    image_a: Indices,
    image_b: Indices,
    pixel_a: Array,
    pixel_b: Array,
) -> tuple[Mask, Indices]:
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


def _evident_points(seen: _Observations, pairs: _Pairs, proven: Mask, alive: Mask) -> Indices:
    """How many points each image sees that a proven pair of images still there has placed."""
    evident = _evident(seen, pairs, proven, alive)
    return np.bincount(seen.image[evident], minlength=len(alive))


def _evident(seen: _Observations, pairs: _Pairs, proven: Mask, alive: Mask) -> Mask:
    """Which observations are of such points, by images still there."""
    valid = proven & alive[pairs.image_a] & alive[pairs.image_b]
    placed = np.zeros(len(seen.places), bool)
    placed[pairs.point[valid]] = True
    return np.asarray(alive[seen.image] & placed[seen.point], np.bool_)


def _components(seen: _Observations, pairs: _Pairs, proven: Mask, alive: Mask) -> Indices:
    """Each image's component, of images that see a placed point together."""
    evident = _evident(seen, pairs, proven, alive)
    images = len(alive)
    nodes = images + len(seen.places)
    return connected_components(nodes, seen.image[evident], images + seen.point[evident])[:images]
