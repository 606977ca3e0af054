"""What speaks for a pose and against it, beside the number of its inliers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vladmap.features.base import LocalFeatures
from vladmap.localisation.poses import FoundPose
from vladmap.mapping.arrays import Array, Indices

# The picture is looked at in so many parts a side.
_PARTS = 6
# A part counts where so many points of the map lie in it.
_FEWEST_POINTS = 8
_FEWEST_PARTS = 3


def visible_points(found: FoundPose, candidates: list[str]) -> Indices:
    """The rows of the points that photographs near the pose show, which look the same way.

    These are the points of the candidates that take part in the pose.
    """
    shown = [
        found.model.observations(image)[1]
        for image, inliers in zip(candidates, found.support.tolist(), strict=True)
        if inliers and image in found.model.row
    ]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *shown]))


def part_counts(found: FoundPose, candidates: list[str]) -> tuple[Indices, Indices]:
    """(points that the picture should show, those that it does) in each part of it, (36,) each."""
    camera, points = found.pose.camera, visible_points(found, candidates)
    pixels, depths = found.pose.project(found.model.arrays.places[points])
    size = np.array([camera.width, camera.height])
    inside = (depths > 0) & ((pixels >= 0) & (pixels < size)).all(axis=1)
    part = _parts(pixels[inside], size)
    shown = np.isin(points[inside], found.explained.point)
    return _counted(part), _counted(part[shown])


def explained_share(found: FoundPose, candidates: list[str]) -> float | None:
    """Of the parts of the picture in which the map has points to show, the share that shows any.

    A part counts where points enough lie in it for one to show, at the rate of the whole picture:
    at night few show anywhere. None where fewer than three parts count.
    """
    expected, shown = part_counts(found, candidates)
    rate = shown.sum() / max(1, expected.sum())
    counted = (expected >= _FEWEST_POINTS) & (expected * rate >= 1.0)
    return float((shown[counted] > 0).mean()) if counted.sum() >= _FEWEST_PARTS else None


def inlier_lines(
    found: FoundPose,
    candidate: int,
    image_id: str,
    ours: LocalFeatures,
    theirs: LocalFeatures,
) -> Array:
    """(k, 4) x, y in the query and x, y in a candidate, in pixels, of the pose's inliers there."""
    rows = np.flatnonzero(found.explained.votes[candidate])
    keypoints, points = found.model.observations(image_id)
    order = np.argsort(points, kind="stable")
    at = order[np.searchsorted(points[order], found.explained.point[rows])]
    ends = (
        ours.keypoints[found.explained.keypoint[rows], :2],
        theirs.keypoints[keypoints[at], :2],
    )
    return np.concatenate(ends, axis=1).astype(np.float64)


def covered_share(features: LocalFeatures, size: tuple[int, int], matched: Indices) -> float:
    """Of the parts of the picture that have keypoints enough, the share with one of `matched`.

    `matched` (m,) are rows of the features that agree with another photograph.
    """
    part = _parts(features.keypoints[:, :2].astype(np.float64), np.array(size))
    counted = _counted(part) >= _FEWEST_POINTS
    return float((_counted(part[matched])[counted] > 0).mean()) if counted.any() else 0.0


def _parts(pixels: Array, size: NDArray[np.int64]) -> Indices:
    """The part of the picture that each pixel lies in, (n,), from 0 row by row."""
    column, row = np.clip((pixels / size * _PARTS).astype(np.int64), 0, _PARTS - 1).T
    return np.asarray(row * _PARTS + column)


def _counted(part: Indices) -> Indices:
    return np.bincount(part, minlength=_PARTS * _PARTS)
