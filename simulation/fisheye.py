"""The equidistant fisheye, rendered by three pinholes that look left, ahead and right."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from vladmap.simulation.camera import Array, Camera, Poses

_SPREAD_DEG = 58.0  # between the pinholes' axes
_MARGIN = 1.03  # of their fields of view: what is sampled lies inside


@dataclass(frozen=True)
class Fisheye:
    """A point at an angle t from the optical axis appears f * t from the principal point.

    COLMAP's OPENCV_FISHEYE without its four distortions. The corners of a picture must lie within
    88 degrees of the axis. Pixels as in `Camera`.
    """

    width: int = 640
    height: int = 480
    focal: float = 268.0

    @property
    def model(self) -> str:
        """COLMAP's name of the projection."""
        return "OPENCV_FISHEYE"

    @property
    def fx(self) -> float:
        return self.focal

    @property
    def fy(self) -> float:
        return self.focal

    @property
    def cx(self) -> float:
        return 0.5 * self.width

    @property
    def cy(self) -> float:
        return 0.5 * self.height

    def smaller(self, factor: int) -> Fisheye:
        """The camera whose pixels are `factor` times as wide and as high."""
        return Fisheye(self.width // factor, self.height // factor, self.focal / factor)

    def rays(self) -> Array:
        """(height, width, 3) unit vectors from the camera through its pixels' centres."""
        x = (np.arange(self.width) + 0.5 - self.cx) / self.focal
        y = (np.arange(self.height) + 0.5 - self.cy) / self.focal
        x, y = np.broadcast_arrays(x, y[:, None])
        angle = np.hypot(x, y)
        # sin(angle) / angle, which is 1 on the axis.
        across = np.sinc(angle / np.pi)
        return np.stack([x * across, y * across, np.cos(angle)], -1)

    def pixels(self, points: Array) -> Array:
        """(..., 2) where (..., 3) points of the camera's frame appear."""
        across = np.hypot(points[..., 0], points[..., 1])
        angle = np.arctan2(across, points[..., 2])
        scale = self.focal * angle / np.where(across > 0, across, 1.0)
        x = scale * points[..., 0] + self.cx
        y = scale * points[..., 1] + self.cy
        return np.stack([x, y], -1)


@dataclass(frozen=True, eq=False)
class Faces:
    """Three pinholes that together see what a fisheye sees."""

    camera: Camera
    turns: Array  # (3, 3, 3) rotations face_from_fisheye
    face: NDArray[np.int64]  # (H, W) the face that a pixel of the fisheye is taken from
    pixel: Array  # (H, W, 2) where in that face

    def poses(self, pose: Poses) -> Poses:
        """The three poses of the faces of a fisheye at one pose."""
        return Poses(np.repeat(pose.centre, 3, 0), self.turns @ pose.rotation[0])

    def nearest(self, pictures: Tensor) -> Tensor:
        """(H, W) from three pictures (3, h, w) of the faces: the nearest pixel, none mixed."""
        x, y = np.floor(self.pixel).astype(np.int64).transpose(2, 0, 1)
        return pictures[tuple(torch.from_numpy(index) for index in (self.face, y, x))]

    def blended(self, pictures: Tensor) -> Tensor:
        """(C, H, W) from three pictures (3, C, h, w) of the faces, bilinear."""
        size = np.array([self.camera.width, self.camera.height])
        grid = torch.from_numpy((2.0 * self.pixel / size - 1.0).astype(np.float32))
        grid = grid.to(pictures.device).expand(3, -1, -1, -1)
        sampled = grid_sample(pictures, grid, padding_mode="border", align_corners=False)
        chosen = torch.from_numpy(self.face).to(pictures.device)[None, None]
        return sampled.gather(0, chosen.expand(1, sampled.shape[1], -1, -1))[0]


@lru_cache(maxsize=4)
def faces_of(camera: Fisheye) -> Faces:
    """The pinholes for a fisheye; their pixels in the middle are as fine as its own."""
    rays = camera.rays()
    yaw = np.degrees(np.arctan2(rays[..., 0], rays[..., 2]))
    face = np.clip(np.round(yaw / _SPREAD_DEG), -1, 1).astype(np.int64) + 1
    angles = np.radians([-_SPREAD_DEG, 0.0, _SPREAD_DEG])
    turns = np.stack(
        [
            np.array([[np.cos(a), 0.0, -np.sin(a)], [0.0, 1.0, 0.0], [np.sin(a), 0.0, np.cos(a)]])
            for a in angles
        ]
    )
    turned = np.einsum("hwij,hwj->hwi", turns[face], rays)
    flat = turned[..., :2] / turned[..., 2:]
    half = _MARGIN * np.abs(flat).max((0, 1))
    width, height = (2 * int(np.ceil(side * camera.focal)) for side in half)
    pinhole = Camera(width, height, camera.focal, camera.focal, 0.5 * width, 0.5 * height)
    pixel = flat * camera.focal + 0.5 * np.array([width, height])
    return Faces(pinhole, turns, face, pixel)
