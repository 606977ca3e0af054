"""Two reconstructions in one frame as one: tracks that share a keypoint become one track.

Tiles share local features: an image has the same keypoints in each, so that two tracks that share
a keypoint show the same point. COLMAP has no merge of reconstructions in Python.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vladmap.features.colmap import pycolmap
from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.graph import connected_components


@dataclass(frozen=True)
class _Seen:
    """Observations of a model: image names, and rows of (row of the name, keypoint, point)."""

    names: list[str]
    image: Indices
    keypoint: Indices
    point: Indices


def _seen(model: pycolmap.Reconstruction) -> _Seen:
    names, image, keypoint, point = [], [], [], []
    for row, number in enumerate(sorted(model.reg_image_ids())):
        each = model.image(number)
        indices = np.asarray(each.get_observation_point2D_idxs(), np.int64)
        names.append(each.name)
        image.append(np.full(len(indices), row))
        keypoint.append(indices)
        point.append(
            np.array([seen.point3D_id for seen in each.get_observation_points2D()], np.int64)
        )
    none = np.zeros(0, np.int64)
    return _Seen(names, *(np.concatenate([none, *part]) for part in (image, keypoint, point)))


def _meeting(source: _Seen, target: _Seen) -> tuple[Indices, Indices]:
    """Pairs of points, one of each, that share a keypoint, each pair once, sorted."""
    row_of = {name: row for row, name in enumerate(target.names)}
    place = np.array([row_of.get(name, -1) for name in source.names], np.int64)
    width = 1 + max(source.keypoint.max(initial=0), target.keypoint.max(initial=0))
    image = place[source.image]
    shared = np.flatnonzero(image >= 0)
    ours = image[shared] * width + source.keypoint[shared]
    _, at, other = np.intersect1d(ours, target.image * width + target.keypoint, return_indices=True)
    pairs = np.stack([source.point[shared][at], target.point[other]], axis=1)
    first, second = np.unique(pairs, axis=0).T if len(pairs) else (pairs[:, 0], pairs[:, 1])
    return first, second


def common_points(
    source: pycolmap.Reconstruction, target: pycolmap.Reconstruction
) -> tuple[Array, Array]:
    """(n, 3) places in both models of points that share a keypoint, a row a pair of points."""
    first, second = _meeting(_seen(source), _seen(target))
    return (
        np.array([source.point3D(number).xyz for number in first.tolist()]).reshape(-1, 3),
        np.array([target.point3D(number).xyz for number in second.tolist()]).reshape(-1, 3),
    )


def join_models(
    base: pycolmap.Reconstruction, other: pycolmap.Reconstruction
) -> pycolmap.Reconstruction:
    """One model of two that are in one frame; poses of common images are the base's.

    Each image is there once. Tracks that meet in a keypoint become one; an observation that two
    tracks claim stays with the base's.
    """
    joined = pycolmap.Reconstruction(base)
    number_of = _add_images(joined, other)
    for own, added in _tracks_that_meet(base, other):
        free = [
            pycolmap.TrackElement(number_of[name], index)
            for name, index in (key for number in added for key in _keys(other, number))
            if not joined.image(number_of[name]).points2D[index].has_point3D()
        ]
        if own:
            target = own[0]
            for further in own[1:]:
                target = joined.merge_points3D(target, further)
            for element in free:
                joined.add_observation(target, element)
        elif len(free) >= 2:
            point = other.point3D(added[0])
            track = pycolmap.Track()
            track.add_elements(free)
            joined.add_point3D(point.xyz, track, point.color)
    return joined


def _add_images(model: pycolmap.Reconstruction, other: pycolmap.Reconstruction) -> dict[str, int]:
    """Add the images, with poses and keypoints, that `model` lacks; all its numbers by name."""
    number_of = {image.name: number for number, image in model.images.items()}
    last = max(model.images, default=0)
    camera_of: dict[int, int] = {}
    for number in sorted(other.reg_image_ids()):
        image = other.image(number)
        if image.name in number_of:
            own = model.image(number_of[image.name])
            if not own.has_pose:
                # The image was removed from `model`, which still has it, but without a pose.
                frame = model.frame(own.frame_id)
                frame.rig_from_world = image.cam_from_world()
                model.register_frame(own.frame_id)
            continue
        if image.camera_id not in camera_of:
            camera_of[image.camera_id] = _camera(model, other.camera(image.camera_id))
        last += 1
        copy = pycolmap.Image(
            name=image.name,
            keypoints=np.array([point.xy for point in image.points2D]).reshape(-1, 2),
            camera_id=camera_of[image.camera_id],
            image_id=last,
        )
        model.add_image_with_trivial_frame(copy, image.cam_from_world())
        number_of[image.name] = last
    return number_of


def _tracks_that_meet(
    base: pycolmap.Reconstruction, other: pycolmap.Reconstruction
) -> list[tuple[list[int], list[int]]]:
    """Points of `base` and of `other` that are one point, keypoint by keypoint; none of base's
    alone. In the order of the first of `other`.
    """
    ours, theirs = sorted(base.points3D), sorted(other.points3D)
    added, known = _meeting(_seen(other), _seen(base))
    first = np.searchsorted(np.array(ours, np.int64), known)
    second = len(ours) + np.searchsorted(np.array(theirs, np.int64), added)
    labels = connected_components(len(ours) + len(theirs), first, second).tolist()
    groups: dict[int, tuple[list[int], list[int]]] = {}
    for number, label in zip(theirs, labels[len(ours) :], strict=True):
        groups.setdefault(label, ([], []))[1].append(number)
    for number, label in zip(ours, labels, strict=False):
        if label in groups:
            groups[label][0].append(number)
    return list(groups.values())


def _keys(model: pycolmap.Reconstruction, number: int) -> list[tuple[str, int]]:
    """The (image name, keypoint) that a point is seen at."""
    return [
        (model.image(element.image_id).name, element.point2D_idx)
        for element in model.point3D(number).track.elements
    ]


def _camera(model: pycolmap.Reconstruction, camera: pycolmap.Camera) -> int:
    """The id under which `model` has this camera, added if it is new to it."""
    for number, known in sorted(model.cameras.items()):
        same = (known.model, known.width, known.height) == (
            camera.model,
            camera.width,
            camera.height,
        )
        if same and np.array_equal(known.params, camera.params):
            return int(number)
    copy = pycolmap.Camera(camera.todict())
    copy.camera_id = max(model.cameras, default=0) + 1
    model.add_camera_with_trivial_rig(copy)
    return int(copy.camera_id)
