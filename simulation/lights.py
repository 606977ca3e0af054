"""Light on a city: the sun with its shadows, the sky, and the lamps by night."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from vladmap.simulation.city import City
from vladmap.simulation.conditions import Conditions
from vladmap.simulation.materials import Material
from vladmap.simulation.raster import rasterise
from vladmap.simulation.views import View, affine, centres, corners_of, normals_of

_SHADOW_SIZE = 2048
_SHADOW_BIAS = 0.12  # m
_LAMP_CELL = 2.0  # m
_LAMP_REACH = 24.0  # m around the outermost lamps
_LAMP_POWER = 16.0
_SNOW = (0.95, 0.96, 1.0)


class Lights:
    """The light of given conditions in a city, shadows included."""

    def __init__(self, city: City, conditions: Conditions) -> None:
        device = city.quads.corner.device
        self.conditions = conditions
        normals = normals_of(city)
        sun = torch.from_numpy(conditions.sun).to(device)
        facing = (normals @ sun).clamp(min=0.0).float()
        # Sky from above, light thrown back by the ground from below.
        above = (0.5 + 0.5 * normals[:, 2]).float()
        bounced = 0.45 + 0.55 * above
        self.direct = facing[None] * _colour(conditions.sunlight, device)[:, None]
        self.ambient = bounced[None] * _colour(conditions.skylight, device)[:, None]
        self.haze = _colour(conditions.horizon, device)
        self.zenith = _colour(conditions.zenith, device)
        self.cloud = 0.62 * _colour(conditions.skylight + 0.5 * conditions.sunlight, device)
        sunny = conditions.sun_elevation_deg > 0 and conditions.direct > 0
        self.shadows = _shadow_map(city, conditions) if sunny else None
        self.up = normals[:, 2].float()
        material = city.quads.material
        self.road = (material == Material.ASPHALT).float()
        self.ground = ((material == Material.PAVING) | (self.road > 0)) & (self.up > 0.9)
        self.glow = self.lamps = None
        if conditions.lamps > 0:
            glow = city.quads.tint.square() * city.quads.glow[:, None]
            self.glow = conditions.lamps * glow.T.contiguous()
            self.lamps = _lamp_field(city)

    def on(
        self, city: City, view: View, quad: Tensor, x: Tensor, y: Tensor, depth: Tensor
    ) -> Tensor:
        """(3, n) light at the places that n image points see."""
        light = torch.stack([row[quad] for row in self.ambient])
        if self.lamps is not None:
            lamplight = self.conditions.lamps * self.lamps.at(view, x, y, depth)
            for channel, share in enumerate(self.conditions.lamp_colour):
                light[channel] += share * lamplight
        if self.shadows is None:
            return light
        lit = self.shadows.visible(view, x, y, depth)
        for channel in range(3):
            light[channel] += lit * self.direct[channel][quad]
        return light

    def cover_with_snow(self, quad: Tensor, stains: list[Tensor], albedo: Tensor) -> None:
        """Whiten what faces up, in place: in patches, and the road, which is driven on, less."""
        amount = self.conditions.snow
        up = ((self.up[quad] - 0.25) * 2.5).clamp(0.0, 1.0)
        patches = stains[3] - (0.95 - 0.95 * amount) - 0.22 * (1 - 0.5 * amount) * self.road[quad]
        cover = up * (patches * 5.0).clamp(0.0, 1.0)
        relief = 0.85 + 0.3 * (stains[0] - 0.5)
        for channel, white in enumerate(_SNOW):
            albedo[channel] += cover * (white * relief - albedo[channel])

    def wet(self, view: View, quad: Tensor, x: Tensor, y: Tensor, colour: Tensor) -> None:
        """Darken wet ground and let it mirror the sky at grazing angles, in place."""
        there = self.ground[quad].nonzero()[:, 0]
        x, y = x[there], y[there]
        east, north, up = (row[0] * x + row[1] * y + row[2] for row in view.ray.float())
        steep = up.abs() / torch.sqrt(east * east + north * north + up * up)
        mirrored = 0.04 + 0.75 * (1.0 - steep.clamp(0.0, 1.0)) ** 5  # Schlick's Fresnel
        mirrored = self.conditions.wet * mirrored
        for channel in range(3):
            ground = colour[channel, there] * (1.0 - 0.5 * self.conditions.wet)
            colour[channel, there] = torch.lerp(ground, self.haze[channel], mirrored)


def _colour(value: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(value).float().to(device)


class _ShadowMap:
    """How near the sun the nearest surface is, on a parallel projection along the sun's rays."""

    def __init__(self, city: City, conditions: Conditions) -> None:
        corners = corners_of(city)[city.scenery :]
        sun = torch.from_numpy(conditions.sun).to(corners.device)
        flat = torch.tensor([0.0, 0.0, 1.0], dtype=sun.dtype, device=sun.device)
        right = torch.linalg.cross(flat, sun)
        right = right / right.norm() if float(right.norm()) > 1e-6 else sun.new_tensor([1.0, 0, 0])
        down = -torch.linalg.cross(sun, right)
        axes = torch.stack([right, down, sun])
        points = corners @ axes.T
        low, high = points.flatten(0, 1).amin(0), points.flatten(0, 1).amax(0)
        scale = _SHADOW_SIZE / (high - low)
        self.to_map = axes * scale[:, None]
        self.to_map[2] = sun
        self.origin = torch.stack([low[0] * scale[0], low[1] * scale[1], low[2] - 1.0])
        points = corners @ self.to_map.T - self.origin
        facing = normals_of(city)[city.scenery :] @ sun > 1e-6
        points = points[facing]
        # Nearness is affine in the map's coordinates: through three corners of each quad.
        image = torch.cat([points[..., :2], torch.ones_like(points[..., :1])], -1)
        plane = torch.linalg.solve_ex(image[:, :3], points[:, :3, 2:])[0][..., 0]
        # What the sun sees edge on has no plane, and no shadow.
        whole = plane.isfinite().all(1)
        image, plane = image[whole], plane[whole]
        seen = rasterise(image, plane, _SHADOW_SIZE, _SHADOW_SIZE).view(-1)
        pixel = torch.arange(len(seen), device=seen.device)
        x, y = centres(pixel, _SHADOW_SIZE)
        near = affine(plane.float(), seen.clamp(min=0), x, y)
        self.nearness = torch.where(seen >= 0, near, torch.zeros_like(near))

    def visible(self, view: View, x: Tensor, y: Tensor, depth: Tensor) -> Tensor:
        """(n,) float32: 1 in the sun, 0 in shadow, between along a shadow's border."""
        turn = (self.to_map @ view.ray).float()
        shift = (self.to_map @ view.place - self.origin).float()
        a, b, near = (
            (row[0] * x + row[1] * y + row[2]) * depth + shift[axis]
            for axis, row in enumerate(turn)
        )
        near += _SHADOW_BIAS
        a, b = a - 0.5, b - 0.5
        left, top = a.floor(), b.floor()
        inside = (left >= 0) & (top >= 0) & (left < _SHADOW_SIZE - 1) & (top < _SHADOW_SIZE - 1)
        index = torch.where(inside, top * _SHADOW_SIZE + left, torch.zeros_like(left)).long()
        right_weight, low_weight = a - left, b - top
        lit = [
            (self.nearness[index + step] <= near).float()
            for step in (0, 1, _SHADOW_SIZE, _SHADOW_SIZE + 1)
        ]
        upper = torch.lerp(lit[0], lit[1], right_weight)
        lower = torch.lerp(lit[2], lit[3], right_weight)
        return torch.where(inside, torch.lerp(upper, lower, low_weight), torch.ones_like(a))


class _LampField:
    """The light of the street lamps on a grid of places, for a lamp of strength and colour 1."""

    def __init__(self, city: City) -> None:
        device = city.quads.corner.device
        lamps = torch.from_numpy(city.lamps).float().to(device)
        low = lamps.amin(0) - _LAMP_REACH
        high = lamps.amax(0) + _LAMP_REACH
        low[2], high[2] = 0.0, lamps[:, 2].amax() + 4.0
        counts = ((high - low) / _LAMP_CELL).ceil().long() + 1
        self.low, self.size = low, (counts - 1).float() * _LAMP_CELL
        x, y, z = (torch.arange(int(n), device=device) * _LAMP_CELL for n in counts)
        field = torch.zeros((len(z), len(y), len(x)), device=device)
        for east, north, up in (lamps - low).tolist():
            across = (x - east).square()[None] + (y - north).square()[:, None]
            below = torch.sigmoid(2.0 * (up - z) + 2.0)  # lamps are shaded above
            rise = (z - up).square()
            field += below[:, None, None] * _LAMP_POWER / (across + rise[:, None, None] + 3.0)
        self.field = field[None, None]

    def at(self, view: View, x: Tensor, y: Tensor, depth: Tensor) -> Tensor:
        """(n,) light at the places that n image points see."""
        ray, place = view.ray.float(), view.place.float() - self.low
        axes = [
            ((ray[k, 0] * x + ray[k, 1] * y + ray[k, 2]) * depth + place[k]) / self.size[k]
            for k in range(3)
        ]
        grid = torch.stack(axes, -1) * 2.0 - 1.0
        return grid_sample(self.field, grid[None, None, None], align_corners=True).view(-1)


@lru_cache(maxsize=2)
def _lamp_field(city: City) -> _LampField | None:
    return _LampField(city) if len(city.lamps) else None


@lru_cache(maxsize=2)
def _shadow_map(city: City, conditions: Conditions) -> _ShadowMap:
    return _ShadowMap(city, conditions)
