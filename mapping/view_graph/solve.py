"""The pose graph of a collection: a first pose of every image, before any tile is mapped.

Relative rotations give the rotations of all images; depths of shared keypoints the lengths of all
baselines; GPS and the drives the rest. It is good to about a metre and a degree: enough to judge
every pair, to cut tiles and to begin bundle adjustment, and every image's pose is held by all
pairs of the collection, not by those of one tile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from vladmap.geodesy.wgs84 import geodetic_to_enu
from vladmap.mapping.arrays import Array, Bools, Indices, Origin
from vladmap.mapping.filled_positions import fill_positions, positions_by_partners
from vladmap.mapping.gps import choose_origin
from vladmap.mapping.photographs import Pairs, Photographs, stretches
from vladmap.mapping.rotations import rotation_to_z
from vladmap.mapping.view_graph.chains import against_chains
from vladmap.mapping.view_graph.depths import depth_ratios, pair_depths
from vladmap.mapping.view_graph.frames import (
    Baselines,
    Frames,
    Ground,
    adjust_frames,
)
from vladmap.mapping.view_graph.lengths import relative_lengths
from vladmap.mapping.view_graph.pairs import MatchedPairs
from vladmap.mapping.view_graph.rotations import average_rotations
from vladmap.mapping.view_graph.tears import tear_shifts

MIN_IMAGES = 3
"""A set of fewer connected images has no pose graph."""

# Pairs of two photographs of a drive, at most so many places apart, are adjusted first.
_ODOMETRY = 15
# So many photographs that follow each other share an offset of GPS.
_OFFSET_PIECE = 6
# At first pairs so many places apart compare a drive's shape with its GPS.
_SHAPE = 30
_ODOMETRY_WIDTHS = (60.0, 40.0, 30.0, 20.0, 15.0, 10.0, 7.0, 5.0, 3.0)
_ALL_WIDTHS = (30.0, 20.0, 15.0, 10.0, 8.0, 6.0, 4.0, 3.0, 2.0, 1.5)
# Torn drives are mended, and all adjusted again, at most so many times.
_MENDINGS = 4
_MENDED_WIDTHS = (3.0, 3.0, 3.0, 2.0, 2.0, 1.5, 1.5)
_MIN_SHARED_KEYPOINTS = 8
# The weight of a camera's upward direction beside a baseline of a metre.
_UPRIGHT = 3.0
_ALIGN_ROUNDS = 10
_ALIGN_M = 8.0
# The length of the usual baseline where nothing gives a scale.
_UNKNOWN_BASELINE_M = 5.0
# A pair supports its images if its residual is below so many standard deviations.
_SUPPORT = 3.0


@dataclass(frozen=True)
class Located:
    """n images with what their files say: degrees, metres, NaN where unknown.

    `sigma` (n,) is the standard deviation of GPS along the ground, `sequence` (n,) the drive, -1
    for none, `index` (n,) the place in it.
    """

    latitude: Array
    longitude: Array
    altitude: Array
    sigma: Array
    sequence: Indices
    index: Indices


@dataclass(frozen=True)
class PoseGraph:
    """First poses of n images.

    `component` (n,) is -1 for an image without a pose, else the set of images that it is posed
    with; `origin` gives each set the origin of its east-north-up frame. `position` (n, 3) are
    metres and `rotation` (n, 3, 3) camera_from_enu. `metric` says which sets have scale and place
    from GPS; the others have a guessed scale and their place is meaningless. `support` (n,) is how
    many pairs agree with the pose. `log_length` and `unit` (m,) are the logarithm of each pair's
    length, and the set of pairs that have it in the same unit.
    """

    component: Indices
    origin: dict[int, Origin]
    position: Array
    rotation: Array
    metric: dict[int, bool]
    support: Indices
    log_length: Array
    unit: Indices


def solve_pose_graph(images: Located, pairs: MatchedPairs, least: int = MIN_IMAGES) -> PoseGraph:
    """Pose the images of all sets of at least `least` that pairs with a relative pose connect.

    Memory and time grow with inliers and pairs.
    """
    used = pairs.posed
    first, second = pairs.first[used], pairs.second[used]
    inliers = pairs.inliers[used].astype(np.float64)
    rotation, component = average_rotations(
        pairs.images, first, second, pairs.rotation[used], inliers
    )
    log_length, group = _lengths(pairs)
    back = np.einsum("mji,mj->mi", pairs.rotation[used], -pairs.direction[used])
    direction = np.einsum("mji,mj->mi", rotation[first], back)

    count = len(images.latitude)
    result = PoseGraph(
        np.full(count, -1, np.int64), {}, np.full((count, 3), np.nan),
        np.full((count, 3, 3), np.nan), {}, np.zeros(count, np.int64), log_length, group,
    )  # fmt: skip
    for root in np.unique(component[first]).tolist():
        members = np.flatnonzero(component == root)
        if len(members) < least:
            continue
        inside = np.flatnonzero(component[first] == root)
        row = np.full(count, -1, np.int64)
        row[members] = np.arange(len(members))
        vectors = direction[inside] * np.exp(log_length[used][inside])[:, None]
        local = _Component(
            _only(images, members),
            rotation[members],
            Baselines(row[first[inside]], row[second[inside]], vectors),
            inliers[inside],
            group[used][inside],
        )
        frames, stretch, origin, metric, support = local.solved()
        turned = np.einsum("nij,nkj->nik", rotation[members], frames.turn[stretch])
        result.component[members] = root
        result.origin[root], result.metric[root] = origin, metric
        result.position[members], result.rotation[members] = frames.position, turned
        result.support[members] = support
    return result


def _lengths(pairs: MatchedPairs) -> tuple[Array, Indices]:
    """The logarithm of each pair's relative length, and the set of pairs that share that unit."""
    turn, direction = np.nan_to_num(pairs.rotation), np.nan_to_num(pairs.direction)
    ratios = depth_ratios(pairs, pair_depths(pairs, turn, direction), _MIN_SHARED_KEYPOINTS)
    return relative_lengths(len(pairs), ratios)


def _only(images: Located, rows: Indices) -> Located:
    return Located(
        images.latitude[rows], images.longitude[rows], images.altitude[rows],
        images.sigma[rows], images.sequence[rows], images.index[rows],
    )  # fmt: skip


@dataclass(frozen=True)
class _Component:
    """Images that pairs connect: rotations (n, 3, 3), baselines of m pairs, `inliers` (m,).

    `group` (m,) is the set of pairs that share a unit of length.
    """

    images: Located
    rotation: Array
    baselines: Baselines
    inliers: Array
    group: Indices

    def solved(self) -> tuple[Frames, Indices, Origin, bool, Indices]:
        """Return positions and frames, the stretch of each image, the origin of their east-north-up
        frame, whether they are metric, and how many pairs support each image."""
        origin = choose_origin(self.images.latitude, self.images.longitude, self.images.altitude)
        stretch, drive = stretches(self.images.sequence, self.images.index)
        piece, of = stretches(self.images.sequence, self.images.index, _OFFSET_PIECE)
        gps = self._enu(origin)
        ground = Ground(
            gps, self.images.sigma, stretch, len(drive), _following(drive),
            piece, _following(of), of >= 0,
        )  # fmt: skip
        up = -self.rotation[:, 1, :]
        usable = self._one_unit()
        metric = bool(np.isfinite(gps[:, 0]).sum() >= MIN_IMAGES)
        place = self._start(gps)
        turn, scale = self._aligned(place, up, usable, metric)
        metres = replace(self.baselines, vector=scale * self.baselines.vector)
        against = against_chains(metres.only(usable), self.images.sequence, self.images.index)
        usable = usable[~against]
        vectors = self.baselines.only(usable)
        every = np.arange(ground.stretches)
        frames = Frames(
            self._chained(place, vectors, self.inliers[usable], turn, scale),
            np.tile(turn, (len(every), 1, 1)),
            np.full(len(every), scale),
            np.zeros((len(of), 3)),
        )
        sequence, index = self.images.sequence, self.images.index
        apart = np.abs(index[vectors.first] - index[vectors.second])
        odometry = (sequence[vectors.first] == sequence[vectors.second]) & (apart <= _ODOMETRY)
        odometry &= sequence[vectors.first] >= 0
        if odometry.any():
            near = vectors.only(np.flatnonzero(odometry))
            frames = adjust_frames(frames, ground, near, up, _ODOMETRY_WIDTHS)
        frames = adjust_frames(frames, ground, vectors, up, _ALL_WIDTHS)
        frames, good = self._mended(frames, ground, vectors, up)
        ends = np.concatenate([vectors.first[good], vectors.second[good]])
        return frames, stretch, origin, metric, np.bincount(ends, minlength=len(up))

    def _mended(
        self, frames: Frames, ground: Ground, vectors: Baselines, up: Array
    ) -> tuple[Frames, Bools]:
        """The frames with torn drives joined, if more pairs agree then, and which pairs agree."""
        good = _agreeing(frames, vectors, ground.stretch)
        for _ in range(_MENDINGS):
            shift = tear_shifts(
                frames, vectors, ground.stretch, self.images.sequence, self.images.index
            )
            if not shift.any():
                break
            shared = _means(shift, ground.piece, len(ground.offsets))
            joined = replace(
                frames, position=frames.position + shift, offset=frames.offset - shared
            )
            joined = adjust_frames(joined, ground, vectors, up, _MENDED_WIDTHS)
            agreeing = _agreeing(joined, vectors, ground.stretch)
            if agreeing.sum() <= good.sum():
                break
            frames, good = joined, agreeing
        return frames, good

    def _enu(self, origin: Origin) -> Array:
        images = self.images
        known = np.isfinite(images.latitude) & np.isfinite(images.longitude)
        height = np.where(np.isfinite(images.altitude), images.altitude, origin[2])
        enu = np.full((len(known), 3), np.nan)
        enu[known] = geodetic_to_enu(
            np.stack([images.latitude, images.longitude, height], axis=1)[known], origin
        )
        enu[~np.isfinite(images.altitude), 2] = np.nan
        return enu

    def _start(self, gps: Array) -> Array:
        """First positions (n, 3): GPS, from the drive, or from partners; NaN where unknown."""
        images = self.images
        flat = gps.copy()
        # Without an altitude a photograph is taken to be as high as the others of the set.
        flat[:, 2] = np.where(np.isfinite(gps[:, 0]), np.nan_to_num(gps[:, 2]), np.nan)
        known = Photographs(flat, images.sigma, images.sequence, images.index)
        place, sigma = fill_positions(known)
        pairs = Pairs(
            self.baselines.first, self.baselines.second, self.inliers,
            np.zeros((len(self.inliers), 4)),
        )  # fmt: skip
        return positions_by_partners(place, sigma, pairs)[0]

    def _one_unit(self) -> Indices:
        """Rows of the pairs whose lengths are in the unit that most pairs share."""
        names, count = np.unique(self.group, return_counts=True)
        return np.flatnonzero(self.group == names[np.argmax(count)])

    def _aligned(
        self, place: Array, up: Array, usable: Indices, metric: bool
    ) -> tuple[Array, float]:
        """The rotation and scale that carry baselines to the shape that GPS gives the drives."""
        length = np.linalg.norm(self.baselines.vector[usable], axis=1)
        guess = _UNKNOWN_BASELINE_M / max(float(np.median(length)), 1e-9)
        target = np.tile([0.0, 0.0, _UPRIGHT], (len(up), 1))
        middle = up.mean(axis=0)
        upright = rotation_to_z(middle / max(float(np.linalg.norm(middle)), 1e-12))
        if not metric:
            return upright, guess
        first, second = self.baselines.first[usable], self.baselines.second[usable]
        sequence, index = self.images.sequence, self.images.index
        apart = place[second] - place[first]
        same = (sequence[first] == sequence[second]) & (sequence[first] >= 0)
        shape = same & (np.abs(index[first] - index[second]) <= _SHAPE)
        if not shape.any():
            shape = np.ones(len(first), bool)
        shape &= np.isfinite(apart).all(axis=1)
        if shape.sum() < MIN_IMAGES:
            return upright, guess
        vector, apart = self.baselines.vector[usable][shape], apart[shape]
        size = np.linalg.norm(vector, axis=1)
        scale = float(np.median(np.linalg.norm(apart, axis=1) / np.maximum(size, 1e-12)))
        weight = np.ones(len(vector) + len(up))
        goal = np.concatenate([apart, target])
        for _ in range(_ALIGN_ROUNDS):
            source = np.concatenate([scale * vector, _UPRIGHT * up])
            turn = _rotation(source, goal, weight)
            carried = source @ turn.T
            weight = 1.0 / (1.0 + (np.linalg.norm(goal - carried, axis=1) / _ALIGN_M) ** 2) ** 2
            own, moved = weight[: len(vector)], carried[: len(vector)]
            agreeing = float((own * (moved * apart).sum(axis=1)).sum())
            scale *= max(agreeing / float((own * (moved**2).sum(axis=1)).sum()), 0.1)
        return turn, scale

    def _chained(
        self, place: Array, vectors: Baselines, inliers: Array, turn: Array, scale: float
    ) -> Array:
        """Positions, unknown ones taken from the partner with most inliers that has one."""
        place = place.copy()
        if not np.isfinite(place[:, 0]).any():
            place[int(np.bincount(vectors.first, minlength=len(place)).argmax())] = 0.0
        moved = scale * vectors.vector @ turn.T
        to = np.concatenate([vectors.second, vectors.first])
        of = np.concatenate([vectors.first, vectors.second])
        step = np.concatenate([moved, -moved])
        strength = np.concatenate([inliers, inliers])
        while True:
            usable = np.flatnonzero(~np.isfinite(place[to, 0]) & np.isfinite(place[of, 0]))
            if len(usable) == 0:
                return np.where(np.isfinite(place), place, np.nanmean(place, axis=0))
            order = usable[np.lexsort((of[usable], -strength[usable], to[usable]))]
            images, at = np.unique(to[order], return_index=True)
            place[images] = place[of[order[at]]] + step[order[at]]


def _agreeing(frames: Frames, vectors: Baselines, stretch: Indices) -> Bools:
    """Which pairs (m,) support the poses of their images."""
    off = frames.residuals(vectors, stretch)
    return np.asarray(off <= _SUPPORT * vectors.error_m(frames.scale[stretch[vectors.first]]))


def _means(vectors: Array, group: Indices, groups: int) -> Array:
    count = np.maximum(np.bincount(group, minlength=groups), 1)
    sums = [np.bincount(group, vectors[:, axis], groups) for axis in range(3)]
    return np.stack(sums, axis=1) / count[:, None]


def _following(drive: Indices) -> tuple[Indices, Indices]:
    """The stretches that another of the same drive follows, and those, by the drive of each."""
    before = np.flatnonzero((np.diff(drive) == 0) & (drive[1:] >= 0))
    return before, before + 1


def _rotation(source: Array, target: Array, weight: Array) -> Array:
    """The rotation (3, 3) that brings (n, 3) vectors nearest to others."""
    return np.asarray(Rotation.align_vectors(target, source, weight)[0].as_matrix())
