"""A tile's model continued: new images are registered to it, and what they touch is adjusted.

The work goes with what is new. A new image gets its pose from the points that its trusted pairs
show it (mapping.register), sees them from then on, and new points are triangulated with it. Then
these images, those that share enough points with them, and the points that they see are adjusted;
all other images hold them where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vladmap.features.colmap import pycolmap
from vladmap.mapping.arrays import Bools, Indices
from vladmap.mapping.camera import Camera
from vladmap.mapping.colmap import SEED, rotation_of
from vladmap.mapping.graph import connected_components
from vladmap.mapping.mapper import adjustment_options, incremental_options
from vladmap.mapping.register import register

# An image is adjusted with new ones if it sees so many points with them.
_COVISIBLE_POINTS = 15
_ROUNDS = 2
_MAX_ITERATIONS = 25
# Intrinsics of a camera that is new to the tile are refined with so many images of it, and stay as
# given where the focal length would change by a larger share: as in placement.calibrate.
_MIN_IMAGES_TO_CALIBRATE = 10
_MAX_FOCAL_CHANGE = 0.1


@dataclass(frozen=True)
class Continued:
    """A model with new images, and how much was done: `registered` of the `candidates`, images by
    name; `freed` images were adjusted, `calibrated` cameras with them; `unjoined` observations were
    taken out because no trusted pair joins them to their points any more."""

    model: pycolmap.Reconstruction
    candidates: list[str]
    registered: list[str]
    freed: int
    calibrated: int
    unjoined: int


class CannotContinue(Exception):
    """The model cannot be continued; the message says why, in one line."""


def continue_model(before: pycolmap.Reconstruction, database: Path, long_side_px: int) -> Continued:
    """Return a model of a database's images that goes on from one `before` of some of them.

    Images are known by their names. Those of `before` that the database does not have any more
    leave it; those with another camera model, or other keypoints, cannot be: CannotContinue is
    raised. The frame is that of `before`, whose intrinsics stay. Candidates that too few points
    hold are left out.
    """
    pycolmap.set_random_seed(SEED)
    with pycolmap.Database.open(database) as opened:
        cache = pycolmap.DatabaseCache.create(opened, pycolmap.DatabaseCacheOptions())
        matches = _Matches.read(opened, set(cache.images))
    model = pycolmap.Reconstruction()
    model.load(cache)
    number_of = {image.name: number for number, image in model.images.items()}
    known = _copy_poses(before, model, number_of)
    unjoined = _copy_points(before, model, number_of, matches)
    growth = _Growth(model, cache, matches, long_side_px, known)
    candidates = sorted(set(number_of.values()) - set(model.reg_image_ids()))
    registered = growth.register_all(candidates)
    # COLMAP forgets images that are not registered when it ends.
    names = [[model.image(number).name for number in each] for each in (candidates, registered)]
    growth.mapper.end_reconstruction(False)
    model.update_point_3d_errors()
    return Continued(model, names[0], names[1], len(growth.freed), growth.calibrated, unjoined)


@dataclass(frozen=True)
class _Matches:
    """The inliers of all pairs of a database: m matches of keypoints of two images, (m, 2) each."""

    images: Indices
    keypoints: Indices

    @classmethod
    def read(cls, database: pycolmap.Database, among: set[int]) -> _Matches:
        pair_ids, views = database.read_two_view_geometries()
        images, keypoints = [np.zeros((0, 2), np.int64)], [np.zeros((0, 2), np.int64)]
        for pair_id, view in zip(pair_ids, views, strict=True):
            ends = pycolmap.pair_id_to_image_pair(pair_id)
            if among.issuperset(ends):
                inliers = np.asarray(view.inlier_matches, np.int64).reshape(-1, 2)
                images.append(np.broadcast_to(np.array(ends, np.int64), inliers.shape))
                keypoints.append(inliers)
        return cls(np.concatenate(images), np.concatenate(keypoints))

    def labels(self, images: Indices, keypoints: Indices) -> Indices:
        """Which observations, (k,) each, matches join, one step after another: equal numbers."""
        width = 1 + max(int(self.keypoints.max(initial=0)), int(keypoints.max(initial=0)))
        matched = (self.images * width + self.keypoints).ravel()
        nodes, place = np.unique(
            np.concatenate([matched, images * width + keypoints]), return_inverse=True
        )
        ends = place[: self.images.size].reshape(-1, 2)
        label = connected_components(len(nodes), ends[:, 0], ends[:, 1])
        return np.asarray(label[place[self.images.size :]], np.int64)

    def of(self, image: int) -> tuple[Indices, Indices, Indices]:
        """Return the matches of one image: its keypoints, the other images, their keypoints."""
        found = [
            (self.keypoints[rows, end], self.images[rows, 1 - end], self.keypoints[rows, 1 - end])
            for end in (0, 1)
            for rows in [np.flatnonzero(self.images[:, end] == image)]
        ]
        own, others, theirs = (np.concatenate(each) for each in zip(*found, strict=True))
        return own, others, theirs


def _copy_poses(
    before: pycolmap.Reconstruction, model: pycolmap.Reconstruction, number_of: dict[str, int]
) -> set[int]:
    """Give images the poses that they had, and cameras their intrinsics; return these cameras."""
    known: set[int] = set()
    for number in sorted(before.reg_image_ids()):
        old = before.image(number)
        if old.name not in number_of:
            continue
        image = model.image(number_of[old.name])
        if image.num_points2D() != old.num_points2D():
            raise CannotContinue(f"{old.name} has other keypoints")
        camera, given = before.camera(old.camera_id), model.camera(image.camera_id)
        if (camera.model, camera.width, camera.height) != (given.model, given.width, given.height):
            raise CannotContinue(f"{old.name} has another camera model")
        if image.camera_id in known and not np.array_equal(given.params, camera.params):
            raise CannotContinue(f"the camera of {old.name} is two in the model")
        given.params = list(camera.params)
        known.add(int(image.camera_id))
        frame = model.frame(image.frame_id)
        frame.rig_from_world = old.cam_from_world()
        model.register_frame(image.frame_id)
    if not known:
        raise CannotContinue("no image of its model is left")
    return known


def _copy_points(
    before: pycolmap.Reconstruction,
    model: pycolmap.Reconstruction,
    number_of: dict[str, int],
    matches: _Matches,
) -> int:
    """Copy points with what today's matches join to them; return how many observations do not."""
    numbers = {
        number: number_of.get(before.image(number).name, -1) for number in before.reg_image_ids()
    }
    ids = sorted(before.points3D)
    elements = [before.points3D[point].track.elements for point in ids]
    image, keypoint = (
        np.array([value(each) for track in elements for each in track], np.int64)
        for value in (lambda each: numbers[each.image_id], lambda each: each.point2D_idx)
    )
    point = np.repeat(np.arange(len(ids)), [len(track) for track in elements])
    there = image >= 0
    image, keypoint, point = image[there], keypoint[there], point[there]
    joined = _largest_parts(point, matches.labels(image, keypoint))
    unjoined = int((~joined).sum())
    image, keypoint, point = image[joined], keypoint[joined], point[joined]
    ends = np.cumsum(np.bincount(point, minlength=len(ids))).tolist()
    for row, start, end in zip(range(len(ids)), [0, *ends], ends, strict=False):
        if end - start >= 2:
            track = pycolmap.Track()
            for each in zip(image[start:end].tolist(), keypoint[start:end].tolist(), strict=True):
                track.add_element(*each)
            old = before.points3D[ids[row]]
            model.add_point3D(old.xyz, track, old.color)
    return unjoined


def _largest_parts(point: Indices, label: Indices) -> Bools:
    """Return which observations (k,) are in the largest part of their point, by their labels."""
    parts, part, count = np.unique(
        np.stack([point, label], axis=1), axis=0, return_inverse=True, return_counts=True
    )
    part = part.reshape(-1)
    order = np.lexsort((parts[:, 1], -count, parts[:, 0]))
    _, first = np.unique(parts[order, 0], return_index=True)
    chosen = np.zeros(len(parts), bool)
    chosen[order[first]] = True
    return np.asarray(chosen[part], bool)


class _Growth:
    """Images being registered to a model, wave by wave; `known` are cameras of the old model."""

    def __init__(
        self,
        model: pycolmap.Reconstruction,
        cache: pycolmap.DatabaseCache,
        matches: _Matches,
        long_side_px: int,
        known: set[int],
    ) -> None:
        self.model, self.matches, self.known = model, matches, known
        self.settings = incremental_options(long_side_px)
        self.mapper = pycolmap.IncrementalMapper(cache)
        self.mapper.begin_reconstruction(model)
        self.seen = cache.correspondence_graph
        self.freed: set[int] = set()
        self.calibrated = 0

    def register_all(self, candidates: Sequence[int]) -> list[int]:
        """Register what can be, return it. Images of one wave see what there was before it."""
        waiting, done = list(candidates), []
        while waiting:
            wave = [number for number in waiting if self._register(number)]
            if not wave:
                break
            done += wave
            waiting = [number for number in waiting if number not in set(wave)]
            for number in wave:
                self.mapper.triangulate_image(self.settings.triangulation, number)
            self._adjust(wave, refine=False)
        if done:
            self._adjust(done, refine=True)
        return sorted(done)

    def _register(self, number: int) -> bool:
        """Give an image its pose, and the points that it sees from there."""
        image = self.model.image(number)
        own, others, theirs = self.matches.of(number)
        points = self._points_at(others, theirs)
        pairs = np.unique(np.stack([own, points], axis=1)[points >= 0], axis=0)
        if len(pairs) == 0:
            return False
        pixels = np.array([image.point2D(index).xy for index in pairs[:, 0].tolist()])
        places = np.array([self.model.point3D(each).xyz for each in pairs[:, 1].tolist()])
        camera = Camera.from_colmap(self.model.camera(image.camera_id))
        found = register(pixels, places, camera)
        if found is None:
            return False
        frame = self.model.frame(image.frame_id)
        frame.rig_from_world = pycolmap.Rigid3d(rotation_of(found.quaternion), found.translation)
        self.mapper.observation_manager.register_frame(image.frame_id)
        self._observe(number, pairs[found.inliers])
        return True

    def _observe(self, number: int, pairs: Indices) -> None:
        """Enter the points of keypoints, pairs (k, 2): one for each keypoint, and once each."""
        _, first = np.unique(pairs[:, 0], return_index=True)
        pairs = pairs[first]
        _, first = np.unique(pairs[:, 1], return_index=True)
        for keypoint, point in pairs[first].tolist():
            element = pycolmap.TrackElement(number, keypoint)
            self.mapper.observation_manager.add_observation(point, element)
            self.mapper.triangulator.add_modified_point3D(point)

    def _points_at(self, images: Indices, keypoints: Indices) -> Indices:
        """Return the point that each keypoint of registered images shows, (k,), -1 for none."""
        points = np.full(len(images), -1, np.int64)
        for number in np.unique(images).tolist():
            image = self.model.image(number)
            if image.has_pose:
                rows = np.flatnonzero(images == number)
                shown = [image.point2D(index) for index in keypoints[rows].tolist()]
                points[rows] = [each.point3D_id if each.has_point3D() else -1 for each in shown]
        return points

    def _adjust(self, wave: Sequence[int], *, refine: bool) -> None:
        """Adjust new images with what they touch, and take out what does not fit then.

        With `refine` intrinsics of cameras that are new to the model are refined, too.
        """
        triangulation = self.settings.triangulation
        cameras = self._to_calibrate() if refine else []
        for _ in range(_ROUNDS):
            for number in wave:
                self.mapper.triangulator.complete_image(triangulation, number)
            self.mapper.triangulator.merge_tracks(triangulation, self._points_of(wave))
            images = self._beside(wave)
            self.freed |= images
            self._solve(sorted(images), cameras)
            self.mapper.observation_manager.filter_points3D(
                self.settings.mapper.filter_max_reproj_error,
                self.settings.mapper.filter_min_tri_angle,
                self._points_of(images),
            )

    def _points_of(self, images: Sequence[int] | set[int]) -> set[int]:
        return {
            int(point.point3D_id)
            for number in images
            for point in self.model.image(number).get_observation_points2D()
        }

    def _beside(self, wave: Sequence[int]) -> set[int]:
        """Return the images of a wave and those that see enough points with them."""
        seen_by = [
            element.image_id
            for point in sorted(self._points_of(wave))
            for element in self.model.point3D(point).track.elements
        ]
        numbers, counts = np.unique(np.array(seen_by, np.int64), return_counts=True)
        return set(wave) | set(numbers[counts >= _COVISIBLE_POINTS].tolist())

    def _solve(self, images: Sequence[int], cameras: Sequence[int]) -> None:
        """Adjust images, the points that they see and some cameras; other images stay."""
        options = adjustment_options(refine_focal=bool(cameras), refine_distortion=bool(cameras))
        options.ceres.solver_options.max_num_iterations = _MAX_ITERATIONS
        config = pycolmap.BundleAdjustmentConfig()
        for number in images:
            config.add_image(number)
        for point in sorted(self._points_of(images)):
            config.add_variable_point(point)
        for number in sorted({int(self.model.image(each).camera_id) for each in images}):
            if number not in cameras:
                config.set_constant_cam_intrinsics(number)
        if len(images) == self.model.num_reg_images():
            config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
        given = {number: np.array(self.model.camera(number).params) for number in cameras}
        pycolmap.create_default_bundle_adjuster(options, config, self.model).solve()
        drifted = [
            number
            for number, params in given.items()
            if not abs(self.model.camera(number).params[0] / params[0] - 1) <= _MAX_FOCAL_CHANGE
        ]
        if drifted:
            for number, params in given.items():
                self.model.camera(number).params = list(params)
            self._solve(images, [])
        else:
            self.calibrated = max(self.calibrated, len(cameras))

    def _to_calibrate(self) -> list[int]:
        """Cameras that are new to the model and have enough images in it."""
        count: dict[int, int] = {}
        for number in self.model.reg_image_ids():
            camera = int(self.model.image(number).camera_id)
            count[camera] = count.get(camera, 0) + 1
        return sorted(
            number
            for number, images in count.items()
            if number not in self.known and images >= _MIN_IMAGES_TO_CALIBRATE
        )
