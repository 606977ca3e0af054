"""Verified pairs of a whole collection as arrays: relative poses, and the rays of their inliers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.camera import Camera
from vladmap.mapping.check import rotations
from vladmap.mapping.two_view import TwoView


@dataclass(frozen=True)
class MatchedPairs:
    """m pairs of n images and their k inliers, sorted by pair.

    `first` and `second` (m,) are rows of the images. `rotation` (m, 3, 3) is second_from_first and
    `direction` (m, 3) the unit translation of second_from_first; both are NaN where the two-view
    geometry has no pose. `focal_px` (m,) is the geometric mean of both focal lengths.

    `pair` (k,) is the pair of each inlier; `key_first` and `key_second` (k,) number its keypoints,
    each keypoint of each image differently; `ray_first` and `ray_second` (k, 3) are the rays to
    them, in the frames of their cameras, with depth 1.
    """

    images: int
    first: Indices
    second: Indices
    rotation: Array
    direction: Array
    focal_px: Array
    pair: Indices
    key_first: Indices
    key_second: Indices
    ray_first: Array
    ray_second: Array

    def __len__(self) -> int:
        return len(self.first)

    @property
    def inliers(self) -> Indices:
        """The number of inliers of each pair, (m,)."""
        return np.bincount(self.pair, minlength=len(self))

    @property
    def posed(self) -> Indices:
        """The rows of the pairs that have a relative pose."""
        known = np.isfinite(self.rotation[:, 0, 0]) & np.isfinite(self.direction[:, 0])
        return np.flatnonzero(known)


def matched_pairs(
    image_ids: Sequence[str],
    views: Iterable[TwoView],
    keypoints: Callable[[str], Array],
    cameras: Mapping[str, Camera],
) -> MatchedPairs:
    """Return the verified `views` as arrays.

    `image_ids` are sorted and give the rows; `keypoints` returns the (c, 2) pixels of the keypoints
    of an image; `cameras` the camera of each image. A match whose ray a camera cannot compute, for
    example outside of the field of its distortion, is left out.
    """
    row_of = {image_id: row for row, image_id in enumerate(image_ids)}
    ordered = sorted(views, key=lambda view: (view.image_id_a, view.image_id_b))
    first = np.array([row_of[view.image_id_a] for view in ordered], np.int64)
    second = np.array([row_of[view.image_id_b] for view in ordered], np.int64)
    used = np.unique(np.concatenate([first, second])) if ordered else np.zeros(0, np.int64)
    rays: dict[int, Array] = {}
    start = np.zeros(len(image_ids) + 1, np.int64)
    for row in used.tolist():
        camera = cameras[image_ids[row]].to_colmap()
        pixels = np.ascontiguousarray(keypoints(image_ids[row]), np.float64)
        plane = np.asarray(camera.cam_from_img(pixels), np.float64).reshape(-1, 2)
        rays[row] = np.column_stack([plane, np.ones(len(plane))])
        start[row + 1] = len(plane)
    start = np.cumsum(start)
    every = np.concatenate([np.zeros((0, 3)), *(rays[row] for row in used.tolist())])
    counts = [len(view.inliers) for view in ordered]
    pair = np.repeat(np.arange(len(ordered)), counts).astype(np.int64)
    matches = np.concatenate([np.zeros((0, 2), np.int64), *(view.inliers for view in ordered)])
    key_first = start[first[pair]] + matches[:, 0].astype(np.int64)
    key_second = start[second[pair]] + matches[:, 1].astype(np.int64)
    usable = np.isfinite(every[key_first]).all(axis=1) & np.isfinite(every[key_second]).all(axis=1)
    focal = np.array([cameras[image_id].focal_px for image_id in image_ids], np.float64)
    return MatchedPairs(
        len(image_ids),
        first,
        second,
        _rotations(ordered),
        np.array([_direction(view) for view in ordered]).reshape(-1, 3),
        np.sqrt(focal[first] * focal[second]),
        pair[usable],
        key_first[usable],
        key_second[usable],
        every[key_first[usable]],
        every[key_second[usable]],
    )


def _rotations(views: Sequence[TwoView]) -> Array:
    unknown = np.full(4, np.nan)
    quaternions = [unknown if view.rotation is None else view.rotation for view in views]
    return rotations(np.array(quaternions, np.float64).reshape(-1, 4))


def _direction(view: TwoView) -> Array:
    if view.translation is None:
        return np.full(3, np.nan)
    length = float(np.linalg.norm(view.translation))
    return view.translation / length if length > 1e-12 else np.full(3, np.nan)
