"""A tile's model as arrays, and its place on earth beside that of other tiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vladmap.features.colmap import pycolmap
from vladmap.geodesy.wgs84 import enu_from_ecef_rotation, geodetic_to_enu
from vladmap.mapping.arrays import Array, Indices, Origin
from vladmap.mapping.georegister import Similarity, centres_and_rotations


@dataclass(frozen=True)
class TileArrays:
    """A model of n registered images, p points and k observations.

    `image` (n,) are the images' numbers among all names, increasing, `centres` (n, 3) and
    `rotations` (n, 3, 3), world_from_camera, their poses, `points_seen` (n,) the observations of
    each. `places` (p, 3) are the points. An observation is the number of its image `seen_by`, the
    index of its keypoint `keypoint` and the row of its point `point`, each (k,).
    """

    image: Indices
    centres: Array
    rotations: Array
    points_seen: Indices
    places: Array
    seen_by: Indices
    keypoint: Indices
    point: Indices

    def rows_of(self, images: Indices) -> Indices:
        """Return the rows of images, by their numbers; all must be images of this model."""
        return np.searchsorted(self.image, images)


def tile_arrays(model: pycolmap.Reconstruction, number_of: Mapping[str, int]) -> TileArrays:
    """Return a model as arrays; `number_of` gives each image name its number."""
    names, centres, rotations = centres_and_rotations(model)
    numbers = np.array([number_of[name] for name in names], np.int64)
    order = np.argsort(numbers)
    ids = np.array(sorted(model.points3D), np.int64)
    places = np.array([model.point3D(each).xyz for each in ids.tolist()]).reshape(-1, 3)
    none = np.zeros(0, np.int64)
    seen_by, keypoint, point = [none], [none], [none]
    registered = sorted(model.reg_image_ids())
    for row in order.tolist():
        image = model.image(registered[row])
        at = np.asarray(image.get_observation_point2D_idxs(), np.int64)
        seen = [observed.point3D_id for observed in image.get_observation_points2D()]
        seen_by.append(np.full(len(at), numbers[row]))
        keypoint.append(at)
        point.append(np.searchsorted(ids, np.array(seen, np.int64)))
    return TileArrays(
        numbers[order],
        centres[order],
        rotations[order],
        np.array([len(part) for part in keypoint[1:]], np.int64),
        places,
        np.concatenate(seen_by),
        np.concatenate(keypoint),
        np.concatenate(point),
    )


def common_points(source: TileArrays, target: TileArrays) -> tuple[Array, Array]:
    """Return the (m, 3) places in both models of points that share a keypoint, a row a pair."""
    common = np.intersect1d(source.image, target.image)
    ours, theirs = (np.flatnonzero(np.isin(each.seen_by, common)) for each in (source, target))
    width = 1 + max(source.keypoint.max(initial=0), target.keypoint.max(initial=0))
    _, at, other = np.intersect1d(
        source.seen_by[ours] * width + source.keypoint[ours],
        target.seen_by[theirs] * width + target.keypoint[theirs],
        return_indices=True,
    )
    pairs = np.stack([source.point[ours[at]], target.point[theirs[other]]], axis=1)
    pairs = np.unique(pairs, axis=0) if len(pairs) else pairs
    return source.places[pairs[:, 0]], target.places[pairs[:, 1]]


def between_frames(source: Origin, target: Origin) -> Similarity:
    """Return the rigid motion from the east-north-up frame at `source` to that at `target`."""
    to_target, to_source = (enu_from_ecef_rotation(*place[:2]) for place in (target, source))
    return Similarity(1.0, to_target @ to_source.T, geodetic_to_enu(np.array(source), target))
