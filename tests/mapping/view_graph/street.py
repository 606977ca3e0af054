"""A made-up street: photographs, keypoints and two-view geometries with known truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from vladmap.geodesy.wgs84 import enu_to_geodetic
from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.camera import Camera
from vladmap.mapping.two_view import TwoView
from vladmap.mapping.view_graph.pairs import MatchedPairs, matched_pairs
from vladmap.mapping.view_graph.solve import Located

ORIGIN = (48.2, 16.37, 170.0)
CAMERA = Camera("SIMPLE_PINHOLE", 640, 480, (420.0, 320.0, 240.0), True)
STEP_M = 4.0
PERIOD_M = 24.0
_SIGHT_M = 40.0


@dataclass(frozen=True)
class Street:
    """n photographs along a street that runs north.

    `drive` and `index` (n,) are the drive of each and its place in it. `centre` (n, 3) and
    `rotation` (n, 3, 3), camera_from_enu, are the truth; `points` (p, 3) the scene; `seen` the
    point of each keypoint of each photograph, `pixels` its place. The scene repeats itself after
    `repeat` points.
    """

    centre: Array
    rotation: Array
    drive: Indices
    index: Indices
    points: Array
    seen: list[Indices]
    pixels: list[Array]
    repeat: int

    @property
    def ids(self) -> list[str]:
        return [f"{row:04d}" for row in range(len(self.centre))]

    def view(self, a: int, b: int, shared: Indices | None = None) -> TwoView:
        """The two-view geometry of two photographs, by what both see, or by (k, 2) keypoints."""
        if shared is None:
            _, at, other = np.intersect1d(self.seen[a], self.seen[b], return_indices=True)
            shared = np.stack([at, other], axis=1)
        turn = self.rotation[b] @ self.rotation[a].T
        moved = self.rotation[b] @ (self.centre[a] - self.centre[b])
        return self.view_as(a, b, turn, moved / np.linalg.norm(moved), shared)

    def alias(self, a: int, b: int, facades: int) -> TwoView:
        """What two photographs look like that see facades so many repetitions apart as one."""
        _, at, other = np.intersect1d(
            self.seen[a], self.seen[b] - facades * self.repeat, return_indices=True
        )
        shared = np.stack([at, other], axis=1)
        turn = self.rotation[b] @ self.rotation[a].T
        back = self.centre[b] - [0.0, facades * PERIOD_M, 0.0]
        moved = self.rotation[b] @ (self.centre[a] - back)
        return self.view_as(a, b, turn, moved / np.linalg.norm(moved), shared)

    def view_as(self, a: int, b: int, turn: Array, moved: Array, shared: Indices) -> TwoView:
        x, y, z, w = Rotation.from_matrix(turn).as_quat()
        matches = shared.astype(np.uint32)
        return TwoView(
            self.ids[a], self.ids[b], "CALIBRATED", matches, matches,
            rotation=np.array([w, x, y, z]), translation=moved,
        )  # fmt: skip

    def views(self, reach: int = 4) -> list[TwoView]:
        """Pairs of photographs at most `reach` steps apart that see thirty points together."""
        apart = np.linalg.norm(self.centre[:, None] - self.centre[None], axis=2)
        near = np.argwhere(np.triu(apart <= reach * STEP_M + 1, 1)).tolist()
        views = [self.view(a, b) for a, b in near]
        return [view for view in views if len(view.inliers) >= 30]

    def matched(self, views: list[TwoView]) -> MatchedPairs:
        cameras = dict.fromkeys(self.ids, CAMERA)
        return matched_pairs(self.ids, views, lambda each: self.pixels[int(each)], cameras)

    def located(
        self, noise_m: float = 0.0, shift: Array | None = None, seed: int = 0, known: bool = True
    ) -> Located:
        """What files say: positions with noise and a shift (n, 3), or none at all."""
        rng = np.random.default_rng(seed)
        place = self.centre + noise_m * rng.normal(size=self.centre.shape)
        place = place + (0.0 if shift is None else shift)
        degrees = enu_to_geodetic(place, ORIGIN) if known else np.full(place.shape, np.nan)
        return Located(*degrees.T, np.full(len(place), max(noise_m, 1.0)), self.drive, self.index)


def street(photographs: int = 40, drives: int = 1, seed: int = 0, straight: bool = False) -> Street:
    """Drives one after the other along the same street, two metres beside each other.

    A straight street has the same facades every PERIOD_M; another one bends to the east.
    """
    rng = np.random.default_rng(seed)
    length = photographs * STEP_M + 60
    repeat = round(15 * PERIOD_M)
    count = repeat * int(np.ceil((length + 20) / PERIOD_M))
    bend = 0.0 if straight else 0.002
    along = rng.uniform(-20, length, (count, 1))
    side = rng.choice([-8.0, 8.0], (len(along), 1)) + rng.normal(0, 1.0, (len(along), 1))
    points = np.hstack([side, along, rng.uniform(-1.5, 8.0, (len(along), 1))])
    if straight:
        first = points[:repeat]
        first[:, 1] = rng.uniform(-20, PERIOD_M - 20, repeat)
        facades = np.arange(count // repeat)[:, None, None] * np.array([0.0, PERIOD_M, 0.0])
        points = (first[None] + facades).reshape(-1, 3)
    points = _bent(points, bend)
    centres, turns, drive, index = [], [], [], []
    for number in range(drives):
        for step in range(photographs):
            at = np.array([2.0 * number, STEP_M * step + number, 0.3 * number])
            ahead = _bent(at[None] + [0, 1.0, 0], bend)[0] - _bent(at[None], bend)[0]
            yaw = np.arctan2(ahead[0], ahead[1])
            # Camera axes right, down, forward; it looks ahead and sways by a degree.
            level = np.array(
                [[np.cos(yaw), -np.sin(yaw), 0], [0, 0, -1], [np.sin(yaw), np.cos(yaw), 0]]
            )
            sway = Rotation.from_rotvec(np.radians(1.0) * rng.normal(size=3)).as_matrix()
            centres.append(_bent(at[None], bend)[0])
            turns.append(sway @ level)
            drive.append(number)
            index.append(step)
    seen, pixels = [], []
    for centre, turn in zip(centres, turns, strict=True):
        local = (points - centre) @ turn.T
        pixel = local[:, :2] / np.maximum(local[:, 2:], 1e-6) * 420.0 + [320.0, 240.0]
        inside = (local[:, 2] > 2) & (local[:, 2] < _SIGHT_M)
        inside &= ((pixel >= 0) & (pixel < [640, 480])).all(axis=1)
        seen.append(np.flatnonzero(inside))
        pixels.append(pixel[inside])
    return Street(
        np.array(centres),
        np.array(turns),
        np.array(drive),
        np.array(index),
        points,
        seen,
        pixels,
        repeat,
    )


def _bent(points: Array, bend: float) -> Array:
    """The street's second half bends to the east, gently."""
    bent = points.copy()
    bent[:, 0] += bend * np.maximum(points[:, 1] - 60.0, 0.0) ** 2
    return bent
