"""What one camera may see of a city: projected quads and the maps onto them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from vladmap.simulation.camera import Camera
from vladmap.simulation.city import City
from vladmap.simulation.raster import rasterise

_NEAR = 0.05  # m


class View:
    """The quads that may appear to one camera, and image coordinates' maps onto them."""

    def __init__(
        self, city: City, centre: np.ndarray, rotation: np.ndarray, camera: Camera
    ) -> None:
        quads, device = city.quads, city.quads.corner.device
        turn = torch.from_numpy(camera.intrinsics @ rotation).to(device)
        place = torch.from_numpy(centre).to(device)
        corners = (corners_of(city) - place) @ turn.T
        relative = quads.corner - place
        offset = (normals_of(city) * relative).sum(1)
        self.index = _in_view(corners, offset, camera).nonzero()[:, 0]
        self.camera, self.place, self.device = camera, place, device
        self.corners = corners[self.index]
        self.ray = torch.linalg.inv(turn)  # image point (x, y, 1) to a ray of unit depth
        relative = relative[self.index]
        # On the quad's plane, 1 / depth, u / depth and v / depth are affine in (x, y).
        self.nearness = (normals_of(city)[self.index] @ self.ray) / offset[self.index, None]
        u, v = quads.axis_u[self.index], quads.axis_v[self.index]
        self.u = u @ self.ray - (u * relative).sum(1, keepdim=True) * self.nearness
        self.v = v @ self.ray - (v * relative).sum(1, keepdim=True) * self.nearness

    def seen(self) -> Tensor:
        """(H, W) index into this view's quads, or -1 for the sky."""
        return rasterise(self.corners, self.nearness, self.camera.width, self.camera.height)


@lru_cache(maxsize=2)
def corners_of(city: City) -> Tensor:
    return city.quads.corners()


@lru_cache(maxsize=2)
def normals_of(city: City) -> Tensor:
    return city.quads.normal()


def _in_view(corners: Tensor, offset: Tensor, camera: Camera) -> Tensor:
    """Quads that turn their front to the camera and are not wholly outside its frustum."""
    x, y, depth = corners.unbind(-1)
    return (
        (offset < -1e-6)
        & (depth > _NEAR).any(1)
        & (x > 0).any(1)
        & (x < camera.width * depth).any(1)
        & (y > 0).any(1)
        & (y < camera.height * depth).any(1)
    )


def centres(pixel: Tensor, width: int) -> tuple[Tensor, Tensor]:
    return (pixel % width).float() + 0.5, (pixel // width).float() + 0.5


def affine(maps: Tensor, index: Tensor, x: Tensor, y: Tensor) -> Tensor:
    a, b, c = (column[index] for column in maps.T.contiguous())
    return a * x + b * y + c
