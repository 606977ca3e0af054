"""Tests of a model, the same for the models of every mapper.

The number of registered images is no measure of quality: a folded map registers all of them. Two
tests can fail: whether the model explains the inliers of the pairs that it was made from, and
whether GPS and the sequences agree with the place of each photograph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vladmap.features.colmap import pycolmap
from vladmap.mapping.arrays import Array, Bools, Indices, Origin
from vladmap.mapping.camera import max_error_px
from vladmap.mapping.filled_positions import fill_positions
from vladmap.mapping.georegister import centres_and_rotations
from vladmap.mapping.gps import gps_positions
from vladmap.mapping.photographs import Photographs

# The model explains a pair if half of its inliers lie within twice their threshold of the epipolar
# planes of the model's poses. It explains an image if it explains half of the image's pairs.
_EXPLAINED_INLIERS = 0.5
_EXPLAINED_PAIRS = 0.5
_ERROR_FACTOR = 2.0
# A photograph may lie so many standard deviations of its GPS, and at least so many metres, from the
# position that GPS and its sequence give it. All photographs of a stretch may share an offset of so
# many metres, judged over a window of so many photographs.
_SIGMAS = 5.0
_MIN_METRES = 10.0
_MAX_OFFSET_M = 30.0
_WINDOW = 5
# GPS jumps of any size are excused if they last for so many photographs at most.
_JUMP_PHOTOGRAPHS = 12
# A step along a drive is continuous in the map if it is below so many median steps.
_USUAL_STEPS = 4.0
# A model is wrong as a whole if a larger share of its images is contradicted.
_MAX_CONTRADICTED = 0.3


@dataclass(frozen=True)
class PairMatches:
    """The inliers of m pairs: k matches in all.

    `names_a` and `names_b` are the names of the images of each pair. `pair` (k,) is the pair of
    each match, `rays_a` and `rays_b` (k, 2) its coordinates in both image planes at depth 1.
    `limit` (m,) is the sine of the largest angle that a ray may be off its epipolar plane.
    """

    names_a: list[str]
    names_b: list[str]
    pair: Indices
    rays_a: Array
    rays_b: Array
    limit: Array


def read_pairs(database: Path) -> PairMatches:
    """Read the verified pairs of a COLMAP database."""
    with pycolmap.Database.open(database) as opened:
        names, offset, rays, focal, error = {}, {}, [], {}, {}
        total = 0
        for image in opened.read_all_images():
            camera = opened.read_camera(image.camera_id)
            keypoints = np.asarray(opened.read_keypoints(image.image_id), np.float64)[:, :2]
            names[image.image_id], offset[image.image_id] = image.name, total
            focal[image.image_id] = camera.mean_focal_length()
            error[image.image_id] = max_error_px(max(camera.width, camera.height))
            rays.append(np.asarray(camera.cam_from_img(keypoints), np.float64).reshape(-1, 2))
            total += len(keypoints)
        ids, _ = opened.read_two_view_geometry_num_inliers()
        ends = [pycolmap.pair_id_to_image_pair(pair) for pair in ids]
        matches = [
            np.asarray(opened.read_two_view_geometry(a, b).inlier_matches, np.int64).reshape(-1, 2)
            + [offset[a], offset[b]]
            for a, b in ends
        ]
    every = np.concatenate([np.zeros((0, 2)), *rays])
    rows = np.concatenate([np.zeros((0, 2), np.int64), *matches])
    return PairMatches(
        [names[a] for a, _ in ends],
        [names[b] for _, b in ends],
        np.repeat(np.arange(len(ends)), [len(part) for part in matches]).astype(np.int64),
        every[rows[:, 0]],
        every[rows[:, 1]],
        np.array(
            [_ERROR_FACTOR * max(error[a], error[b]) / min(focal[a], focal[b]) for a, b in ends],
            np.float64,
        ),
    )


def unexplained_images(model: pycolmap.Reconstruction, pairs: PairMatches) -> list[str]:
    """Return the images of a model whose pairs it does not explain, sorted by name."""
    names, centres, rotations = centres_and_rotations(model)
    row_of = {name: row for row, name in enumerate(names)}
    first = np.array([row_of.get(name, -1) for name in pairs.names_a], np.int64)
    second = np.array([row_of.get(name, -1) for name in pairs.names_b], np.int64)
    inside = (first >= 0) & (second >= 0)
    share = _explained(centres, rotations, first, second, inside, pairs)
    good = share[inside] >= _EXPLAINED_INLIERS
    ends = np.concatenate([first[inside], second[inside]])
    all_pairs = np.bincount(ends, minlength=len(names))
    held = np.bincount(ends, np.concatenate([good, good]), len(names))
    return sorted(
        name
        for name, explained, count in zip(names, held, all_pairs, strict=True)
        if explained < max(1.0, _EXPLAINED_PAIRS * count)
    )


def _explained(
    centres: Array,
    world_from_camera: Array,
    first: Indices,
    second: Indices,
    inside: Bools,
    pairs: PairMatches,
) -> Array:
    """Return the share of each pair's inliers in the epipolar planes of its poses, (m,)."""
    count = len(first)
    a, b = np.where(inside, first, 0), np.where(inside, second, 0)
    used = inside[pairs.pair]
    pair = pairs.pair[used]
    baseline = centres[b] - centres[a]
    baseline /= np.maximum(np.linalg.norm(baseline, axis=1), 1e-12)[:, None]
    rays = []
    for end, plane in ((a, pairs.rays_a[used]), (b, pairs.rays_b[used])):
        ray = np.column_stack([plane, np.ones(len(plane))])
        ray /= np.linalg.norm(ray, axis=1)[:, None]
        rays.append(np.einsum("nij,nj->ni", world_from_camera[end[pair]], ray))
    # The angle of b's ray off the plane of a's ray and the baseline, and the other way round.
    off = np.full(len(pair), np.inf)
    for one, other in (rays, rays[::-1]):
        normal = np.cross(baseline[pair], one)
        length = np.linalg.norm(normal, axis=1)
        sine = np.abs(np.einsum("ni,ni->n", normal, other)) / np.maximum(length, 1e-12)
        off = np.minimum(off, sine)
    good = off <= pairs.limit[pair]
    total = np.bincount(pair, minlength=count)
    return np.asarray(np.bincount(pair, good, count) / np.maximum(total, 1))


def misplaced_images(
    model: pycolmap.Reconstruction,
    by_name: Mapping[str, Mapping[str, Any]],
    origin: Origin,
    gps_sigma_m: float,
) -> list[str]:
    """Return the images of a georegistered model that GPS and sequences place elsewhere, sorted.

    An offset of up to 30 m that a drive, or a stretch of it, shares is an error of GPS and excuses
    its images, and so is a jump of any size there and back within a dozen photographs that the map
    joins to those around them. Neither excuses a photograph that lies off its neighbours, nor a
    drive that the map tears apart.
    """
    names, centres, _ = centres_and_rotations(model)
    return misplaced_places(names, centres, by_name, origin, gps_sigma_m)


def misplaced_places(
    names: Sequence[str],
    centres: Array,
    by_name: Mapping[str, Mapping[str, Any]],
    origin: Origin,
    gps_sigma_m: float,
) -> list[str]:
    """Return what `misplaced_images` does, of images and their centres (n, 3) in the frame."""
    rows = [by_name[name] for name in names]
    gps = gps_positions(rows, origin, gps_sigma_m)
    flat = np.column_stack([gps.enu[:, :2], np.where(np.isnan(gps.enu[:, 0]), np.nan, 0.0)])
    sequence, index = sequences_of(rows)
    place, sigma = fill_positions(Photographs(flat, gps.sigma, sequence, index))
    residual = centres[:, :2] - place[:, :2]
    limit = np.maximum(_SIGMAS * sigma, _MIN_METRES)
    wrong = np.linalg.norm(residual, axis=1) > limit
    shared = np.zeros(len(names), bool)
    for drive in np.unique(sequence[sequence >= 0]):
        members = np.flatnonzero((sequence == drive) & np.isfinite(residual[:, 0]))
        members = members[np.argsort(index[members], kind="stable")]
        if len(members) >= _WINDOW:
            there = centres[members, :2]
            shared[members] = _bears_offset(there, residual[members], limit[members])
            left = wrong[members] & ~shared[members]
            shared[members] |= _gps_jumped(left, _torn(there))
    return sorted(name for name, bad in zip(names, wrong & ~shared, strict=True) if bad)


def _bears_offset(place: Array, residual: Array, limit: Array) -> Bools:
    """Return which photographs of one drive, in order, have the offset that their stretch shares.

    If the residuals jump between two photographs while the drive is continuous in the map, GPS has
    jumped. If the drive in the map jumps as well, the map is torn or folded there, and no
    photograph is excused.
    """
    before = _running_median(residual)
    after = _running_median(residual[::-1])[::-1]
    jumps = np.linalg.norm(after[1:] - before[:-1], axis=1) > limit[1:]
    if (jumps & _torn(place)).any():
        return np.zeros(len(residual), bool)
    local = np.where(
        (np.linalg.norm(residual - before, axis=1) < np.linalg.norm(residual - after, axis=1))[
            :, None
        ],
        before,
        after,
    )
    alike = np.linalg.norm(residual - local, axis=1) <= limit
    return np.asarray(alike & (np.linalg.norm(local, axis=1) <= _MAX_OFFSET_M))


def _torn(place: Array) -> Bools:
    """Return after which photographs of a drive (n, 2), in order, the map is torn, (n - 1,)."""
    step = np.linalg.norm(np.diff(place, axis=0), axis=1)
    return np.asarray(step > _USUAL_STEPS * np.median(step) + _MIN_METRES)


def _gps_jumped(wrong: Bools, torn: Bools) -> Bools:
    """Return which wrong photographs (n,) of a drive the map joins without a tear to right ones.

    If a few photographs in a row lie far from GPS, and the map joins them to those before and
    after, which lie where GPS says, then it was GPS that jumped there and back.
    """
    edges = np.diff(np.concatenate([[False], wrong, [False]]).astype(np.int8))
    excused = np.zeros(len(wrong), bool)
    for begin, end in zip(np.flatnonzero(edges > 0), np.flatnonzero(edges < 0), strict=True):
        inside = begin > 0 and end < len(wrong) and end - begin <= _JUMP_PHOTOGRAPHS
        if inside and not torn[begin - 1 : end].any():
            excused[begin:end] = True
    return excused


def _running_median(values: Array) -> Array:
    """Return the median (n, 2) of each row and the four before it, or of fewer at the start."""
    padded = np.vstack([np.full((_WINDOW - 1, 2), np.nan), values])
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW, axis=0)
    return np.asarray(np.nanmedian(windows, axis=2))


def sequences_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Indices, Indices]:
    """Return a number for the sequence of each row of IMAGES, -1 for none, and the place in it."""
    known = sorted({row["sequence_id"] for row in rows if row.get("sequence_id") is not None})
    number = {name: count for count, name in enumerate(known)}
    return (
        np.array([number.get(row.get("sequence_id"), -1) for row in rows], np.int64),
        np.array([row.get("sequence_index") or 0 for row in rows], np.int64),
    )


def collapsed(
    model: pycolmap.Reconstruction, pairs: pa.Table, name_of: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Return the pairs of JUDGED whose images a georegistered model puts together and GPS apart.

    The pairs are image names. The opposite, images that the model puts apart and GPS together, is
    not counted: there the map is wrong, not the pair.
    """
    names, centres, _ = centres_and_rotations(model)
    row_of = {name: row for row, name in enumerate(names)}
    ends = [[name_of[image] for image in pairs[f"image_id_{end}"].to_pylist()] for end in "ab"]
    first, second = (np.array([row_of.get(name, -1) for name in end], np.int64) for end in ends)
    distance, limit = (
        pairs[name].to_numpy().astype(np.float64) for name in ("distance_m", "limit_m")
    )
    mapped = np.linalg.norm(centres[first] - centres[second], axis=1)
    # A distance that is not known compares as false.
    wrong = (first >= 0) & (second >= 0) & (distance - mapped > limit)
    return [(ends[0][row], ends[1][row]) for row in np.flatnonzero(wrong)]


def contradicted(count: int, images: int) -> bool:
    """Return whether a model of which `count` of `images` images are wrong is wrong as a whole."""
    return count > _MAX_CONTRADICTED * images


def remove_images(model: pycolmap.Reconstruction, names: Sequence[str]) -> None:
    """Remove images, by name, from a model in place, with their observations."""
    unwanted = set(names)
    for number in sorted(model.reg_image_ids()):
        image = model.image(number)
        if image.name in unwanted:
            model.deregister_frame(image.frame_id)
