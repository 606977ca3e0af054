"""Evidence: which images of a model see enough points whose depth parallax determines.

A mapper registers an image on a handful of points. A camera that only turns on its tripod gives any
number of matches but no depth, and the points that a mapper triangulates from them are arbitrary.
The angles between rays of the model do not reveal this, since a rotation mistaken for a translation
has such angles too. The keypoints do: if a single rotation aligns the rays of a pair, at some focal
length near the model's, then the pair shows no parallax (see `mapping.pure_rotation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vladmap.features.colmap import pycolmap
from vladmap.mapping import reasons as why
from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.camera import max_error_px
from vladmap.mapping.graph import connected_components
from vladmap.mapping.pure_rotation import explained_by_rotation

MIN_POINTS = 15
"""Points with parallax that an image must see to be registered: as many as a verified pair."""

# The depth of a point whose rays meet at a smaller angle is noise; this is COLMAP's bound too.
_MIN_ANGLE = np.radians(1.5)
# Of a longer track only so many observations, evenly spaced, are compared with each other.
_MAX_TRACK = 16


@dataclass(frozen=True)
class EvidentModels:
    """Models with evidence, largest first, and the reason for each image name that was removed."""

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


def keep_evident(models: Sequence[pycolmap.Reconstruction], min_model_size: int) -> EvidentModels:
    """Remove the images without evidence from models, in place, until all that remain have it.

    An image has evidence if it sees at least MIN_POINTS points, within its error bound, whose rays
    from two images meet at 1.5 degrees or more, where the pair of those images is not explained by
    a pure rotation. A model that falls apart without the removed images becomes several; one of
    fewer than `min_model_size` images is dropped.
    """
    evident: list[pycolmap.Reconstruction] = []
    dropped: dict[str, str] = {}
    for model in models:
        parts, reasons = _evident_parts(model, min_model_size)
        evident.extend(parts)
        dropped |= reasons
    for model in evident:
        for number in model.reg_image_ids():
            dropped.pop(model.image(number).name, None)
    evident.sort(key=lambda model: -model.num_reg_images())
    return EvidentModels(evident, dict(sorted(dropped.items())))


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
    model: pycolmap.Reconstruction, seen: _Observations, members: Bools
) -> pycolmap.Reconstruction:
    """Return the model with only `members` registered: the same object if these are all."""
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
        observed = image.get_observation_points2D()
        if len(observed) == 0:
            continue
        pixel = np.array([point.xy for point in observed])
        at = np.searchsorted(ids, [point.point3D_id for point in observed])
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
    """Return all pairs of observations of each point, or of _MAX_TRACK of its observations."""
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


def _moved(model: pycolmap.Reconstruction, seen: _Observations, pairs: _Pairs) -> Bools:
    """Return which pairs of observations determine their point's depth, (m,).

    Their rays meet at a sufficient angle, and the camera moved between the two images.
    """
    to_a = seen.places[pairs.point] - seen.centres[pairs.image_a]
    to_b = seen.places[pairs.point] - seen.centres[pairs.image_b]
    angle = np.arctan2(
        np.linalg.norm(np.cross(to_a, to_b), axis=1), np.einsum("ni,ni->n", to_a, to_b)
    )
    cameras = [model.camera(model.image(number).camera_id) for number in seen.numbers]
    turns, of_pair = explained_by_rotation(
        cameras, pairs.image_a, pairs.image_b, seen.pixel[pairs.first], seen.pixel[pairs.second]
    )
    return np.asarray((angle >= _MIN_ANGLE) & ~turns[of_pair], np.bool_)


def _evident_points(seen: _Observations, pairs: _Pairs, proven: Bools, alive: Bools) -> Indices:
    """Return how many points each image sees whose depth a pair of remaining images determines."""
    evident = _evident(seen, pairs, proven, alive)
    return np.bincount(seen.image[evident], minlength=len(alive))


def _evident(seen: _Observations, pairs: _Pairs, proven: Bools, alive: Bools) -> Bools:
    """Return which observations are of such points, by remaining images."""
    valid = proven & alive[pairs.image_a] & alive[pairs.image_b]
    placed = np.zeros(len(seen.places), bool)
    placed[pairs.point[valid]] = True
    return np.asarray(alive[seen.image] & placed[seen.point], np.bool_)


def _components(seen: _Observations, pairs: _Pairs, proven: Bools, alive: Bools) -> Indices:
    """Return the component of each image; images that see such a point together are connected."""
    evident = _evident(seen, pairs, proven, alive)
    images = len(alive)
    nodes = images + len(seen.places)
    return connected_components(nodes, seen.image[evident], images + seen.point[evident])[:images]
