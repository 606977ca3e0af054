"""The pinhole camera and its poses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """A pinhole. Pixels, COLMAP's origin: the centre of the upper-left pixel is (0.5, 0.5)."""

    width: int = 640
    height: int = 480
    fx: float = 425.0
    fy: float = 425.0
    cx: float = 320.0
    cy: float = 240.0

    @property
    def model(self) -> str:
        """COLMAP's name of the projection."""
        return "PINHOLE"

    @property
    def intrinsics(self) -> Array:
        """(3, 3) calibration matrix."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def smaller(self, factor: int) -> Camera:
        """The camera whose pixels are `factor` times as wide and as high."""
        return Camera(
            self.width // factor,
            self.height // factor,
            *(value / factor for value in (self.fx, self.fy, self.cx, self.cy)),
        )

    def rays(self) -> Array:
        """(height, width, 3) unit vectors from the camera through its pixels' centres."""
        x = (np.arange(self.width) + 0.5 - self.cx) / self.fx
        y = (np.arange(self.height) + 0.5 - self.cy) / self.fy
        rays = np.stack([*np.broadcast_arrays(x, y[:, None]), np.ones((len(y), len(x)))], -1)
        return rays / np.linalg.norm(rays, axis=-1, keepdims=True)

    def pixels(self, points: Array) -> Array:
        """(..., 2) where (..., 3) points of the camera's frame appear; NaN of those behind it."""
        depth = np.where(points[..., 2] > 0, points[..., 2], np.nan)
        x = self.fx * points[..., 0] / depth + self.cx
        y = self.fy * points[..., 1] / depth + self.cy
        return np.stack([x, y], -1)


@dataclass(frozen=True, eq=False)
class Poses:
    """N camera poses in the city's east-north-up frame.

    centre: (N, 3) metres. rotation: (N, 3, 3), camera_from_enu; the camera's axes are COLMAP's
    (x right, y down, z forward).
    """

    centre: Array
    rotation: Array

    def __len__(self) -> int:
        return len(self.centre)

    def __getitem__(self, index: slice) -> Poses:
        return Poses(self.centre[index], self.rotation[index])

    @classmethod
    def looking(cls, centre: Array, heading: Array, pitch: Array, roll: Array) -> Poses:
        """From (N, 3) centres and (N,) angles in degrees.

        heading: clockwise from north. pitch: upwards. roll: clockwise as the camera sees it.
        """
        yaw, up, tilt = (np.radians(angle) for angle in (heading, pitch, roll))
        zero = np.zeros_like(yaw)
        forward = np.stack([np.sin(yaw) * np.cos(up), np.cos(yaw) * np.cos(up), np.sin(up)], -1)
        right = np.stack([np.cos(yaw), -np.sin(yaw), zero], -1)
        down = np.cross(forward, right)
        cos, sin = np.cos(tilt)[:, None], np.sin(tilt)[:, None]
        rotation = np.stack([cos * right + sin * down, cos * down - sin * right, forward], 1)
        return cls(np.asarray(centre, np.float64), rotation)

    def headings(self) -> Array:
        """(N,) degrees clockwise from north, 0 to 360, of the optical axis."""
        forward = self.rotation[:, 2]
        return np.degrees(np.arctan2(forward[:, 0], forward[:, 1])) % 360.0

    def quaternions(self) -> Array:
        """(N, 4) unit quaternions (w, x, y, z) of `rotation`, w >= 0."""
        # The largest eigenvector of Bar-Itzhack's matrix (2000): no case distinction by the trace.
        m = self.rotation
        k = np.zeros((len(m), 4, 4))
        k[:, 0, 0] = m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2]
        k[:, 0, 1] = k[:, 1, 0] = m[:, 2, 1] - m[:, 1, 2]
        k[:, 0, 2] = k[:, 2, 0] = m[:, 0, 2] - m[:, 2, 0]
        k[:, 0, 3] = k[:, 3, 0] = m[:, 1, 0] - m[:, 0, 1]
        k[:, 1, 1] = m[:, 0, 0] - m[:, 1, 1] - m[:, 2, 2]
        k[:, 2, 2] = m[:, 1, 1] - m[:, 0, 0] - m[:, 2, 2]
        k[:, 3, 3] = m[:, 2, 2] - m[:, 0, 0] - m[:, 1, 1]
        k[:, 1, 2] = k[:, 2, 1] = m[:, 0, 1] + m[:, 1, 0]
        k[:, 1, 3] = k[:, 3, 1] = m[:, 0, 2] + m[:, 2, 0]
        k[:, 2, 3] = k[:, 3, 2] = m[:, 1, 2] + m[:, 2, 1]
        quaternions = np.linalg.eigh(k)[1][:, :, -1]
        return np.where(quaternions[:, :1] < 0, -quaternions, quaternions)


def project(points: Array, poses: Poses, camera: Camera) -> tuple[Array, Array]:
    """Where (P, 3) points of the city appear: pixels (N, P, 2) and depths (N, P) in metres.

    Points behind a camera have depth <= 0; their pixels mean nothing.
    """
    rays = np.einsum("nij,npj->npi", poses.rotation, points[None] - poses.centre[:, None])
    depth = rays[..., 2]
    safe = np.where(depth == 0, 1.0, depth)
    x = camera.fx * rays[..., 0] / safe + camera.cx
    y = camera.fy * rays[..., 1] / safe + camera.cy
    return np.stack([x, y], -1), depth
