"""Tiles in one frame as one reconstruction: tracks that share a keypoint become one track.

COLMAP has no merge of reconstructions in Python. All tracks of all tiles are joined at once, as the
components of a graph; COLMAP is handed the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vladmap.features.colmap import pycolmap
from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.camera import max_error_px
from vladmap.mapping.georegister import Similarity
from vladmap.mapping.graph import connected_components
from vladmap.mapping.image_poses import SettledPoses
from vladmap.mapping.tile_arrays import TileArrays

LOOSE = 8.0
"""Before the seams are adjusted, an observation may lie so many times the usual bound off."""


@dataclass(frozen=True)
class Tracks:
    """p points and k observations: `image` (numbers), `keypoint` and `point` (rows), each (k,).

    They are sorted by point, then image. `joined` (p,) says which points were several before;
    `conflicts` counts those that were kept apart because one image sees them twice.
    """

    places: Array
    image: Indices
    keypoint: Indices
    point: Indices
    joined: Bools
    conflicts: int = 0

    def without(self, bad: Bools) -> Tracks:
        """Return the tracks without some observations, (k,), and without points seen once."""
        image, keypoint, point = (each[~bad] for each in (self.image, self.keypoint, self.point))
        enough = np.bincount(point, minlength=len(self.places)) >= 2
        kept = enough[point]
        row = np.cumsum(enough) - 1
        return Tracks(
            self.places[enough],
            image[kept],
            keypoint[kept],
            row[point[kept]],
            self.joined[enough],
            self.conflicts,
        )


def join_tracks(
    tiles: Sequence[TileArrays], similarities: Sequence[Similarity], accepted: Indices
) -> Tracks:
    """Return the tracks of all tiles as one set, in the frame of the similarities.

    `accepted` (m, 2) are the (image, tile) whose observations count. Tracks that share a keypoint
    are one. Where two keypoints of one image would then be one point, the tracks of the tiles stay
    apart, and the longer one has the keypoints that both claim.
    """
    first_point = np.cumsum([0, *(len(each.places) for each in tiles)])
    images = 1 + max((int(each.image.max(initial=0)) for each in tiles), default=0)
    tile = np.repeat(np.arange(len(tiles)), [len(each.seen_by) for each in tiles])
    image, keypoint = (
        np.concatenate([getattr(each, name) for each in tiles]) for name in ("seen_by", "keypoint")
    )
    point = np.concatenate(
        [each.point + start for each, start in zip(tiles, first_point, strict=False)]
    )
    places = np.concatenate(
        [to.apply(each.places) for to, each in zip(similarities, tiles, strict=True)]
    )
    counts = np.isin(tile * images + image, accepted[:, 1] * images + accepted[:, 0])
    image, keypoint, point = image[counts], keypoint[counts], point[counts]
    key = image * (1 + keypoint.max(initial=0)) + keypoint

    label = _labels(len(places), key, point)
    apart = _conflicting(len(places), label, image, key, point)
    length = np.bincount(point, minlength=len(places))
    owner = np.where(apart[label[point]], point, label[point])
    # An observation that several tracks of a conflict claim is that of the longest.
    order = np.lexsort((owner, -length[owner], key))
    order = order[np.unique(key[order], return_index=True)[1]]
    order = order[np.lexsort((key[order], owner[order]))]

    whole = np.where(apart[label], np.arange(len(places)), label)
    weight = np.bincount(whole, length, len(places))
    middle = (
        np.stack([np.bincount(whole, length * axis, len(places)) for axis in places.T], axis=1)
        / np.maximum(weight, 1)[:, None]
    )
    parts = np.bincount(label[length > 0], minlength=len(places))
    return Tracks(
        middle,
        image[order],
        keypoint[order],
        owner[order],
        (parts > 1) & ~apart,
        int(apart.sum()),
    ).without(np.zeros(len(order), bool))


def _labels(count: int, key: Indices, point: Indices) -> Indices:
    """Return the component of each point, (count,): points that share a key are connected."""
    order = np.lexsort((point, key))
    key, point = key[order], point[order]
    meet = np.flatnonzero(key[1:] == key[:-1])
    return connected_components(count, point[meet], point[meet + 1])


def _conflicting(count: int, label: Indices, image: Indices, key: Indices, point: Indices) -> Bools:
    """Return which components, (count,), of several points have two keypoints of one image.

    A track that has them in its tile already is none of these.
    """
    seen = np.unique(np.stack([label[point], image, key], axis=1), axis=0)
    twice = (seen[1:, 0] == seen[:-1, 0]) & (seen[1:, 1] == seen[:-1, 1])
    conflicting = np.zeros(count, bool)
    conflicting[seen[1:][twice, 0]] = True
    points = np.bincount(label[np.unique(point)], minlength=count)
    return conflicting & (points > 1)


def build_model(
    models: Sequence[pycolmap.Reconstruction],
    poses: SettledPoses,
    names: Sequence[str],
    tracks: Tracks,
) -> tuple[pycolmap.Reconstruction, Tracks]:
    """Return a reconstruction of settled poses and of tracks, and the tracks that it holds.

    Image n of the settled poses has the id n + 1 there, and the camera of its tile; points have
    their rows + 1 as ids. An observation that lies over LOOSE times the bound off, or behind its
    camera, is left out.
    """
    joined = pycolmap.Reconstruction()
    number_of = [{each.name: number for number, each in model.images.items()} for model in models]
    camera_of: dict[tuple[int, int], int] = {}
    for row, number in enumerate(poses.image.tolist()):
        tile = int(poses.tile[row])
        image = models[tile].image(number_of[tile][names[number]])
        own = (tile, int(image.camera_id))
        if own not in camera_of:
            camera_of[own] = _camera(joined, models[tile].camera(image.camera_id))
        turn = poses.rotations[row].T
        joined.add_image_with_trivial_frame(
            pycolmap.Image(
                name=image.name,
                keypoints=np.array([point.xy for point in image.points2D]).reshape(-1, 2),
                camera_id=camera_of[own],
                image_id=row + 1,
            ),
            pycolmap.Rigid3d(pycolmap.Rotation3d(turn), -turn @ poses.centres[row]),
        )
    ids = 1 + np.searchsorted(poses.image, tracks.image)
    tracks = tracks.without(
        off_by(joined, ids, tracks.keypoint, tracks.places[tracks.point], LOOSE)
    )
    _add_points(joined, 1 + np.searchsorted(poses.image, tracks.image), tracks)
    return joined, tracks


def off_by(
    model: pycolmap.Reconstruction, ids: Indices, keypoint: Indices, places: Array, times: float
) -> Bools:
    """Return which observations, (k,), lie over so many times the usual bound off their points.

    `ids` (k,) are COLMAP's of the images, `keypoint` (k,) indices, `places` (k, 3) the points. One
    behind its camera is off.
    """
    order = np.argsort(ids, kind="stable")
    off = np.zeros(len(ids), bool)
    for rows in np.split(order, np.flatnonzero(np.diff(ids[order])) + 1):
        if len(rows) == 0:
            continue
        image = model.image(int(ids[rows[0]]))
        camera = model.camera(image.camera_id)
        points = image.points2D
        measured = np.array([points[index].xy for index in keypoint[rows].tolist()])
        in_camera = image.cam_from_world() * places[rows]
        error = np.linalg.norm(camera.img_from_cam(in_camera) - measured, axis=1)
        fits = error <= times * max_error_px(max(camera.width, camera.height))
        off[rows] = ~(fits & ((in_camera[:, 2] > 0) | camera.is_spherical()))
    return off


def _add_points(model: pycolmap.Reconstruction, ids: Indices, tracks: Tracks) -> None:
    """Add points with their tracks; COLMAP takes them one by one. They are black."""
    elements = [
        pycolmap.TrackElement(*each)
        for each in zip(ids.tolist(), tracks.keypoint.tolist(), strict=True)
    ]
    black = np.zeros(3, np.uint8)
    ends = np.cumsum(np.bincount(tracks.point, minlength=len(tracks.places))).tolist()
    for place, start, end in zip(tracks.places, [0, *ends], ends, strict=False):
        track = pycolmap.Track()
        track.add_elements(elements[start:end])
        model.add_point3D(place, track, black)


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
