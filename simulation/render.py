"""Photographs of a city: `render(city, poses, camera, conditions)`."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from simulation.camera import Camera, Poses
from simulation.city import City
from simulation.conditions import Conditions
from simulation.paint import MATERIAL_METRES, STAIN_METRES
from simulation.raster import rasterise, resample
from simulation.textures import TextureArray

# A pixel's further coverage samples, relative to its centre.
_SAMPLES = ((-0.36, -0.13), (0.29, -0.25), (0.07, 0.38))
_NEAR = 0.05  # m
_SHADOW_SIZE = 2048
_SHADOW_BIAS = 0.12  # m
_CLOUD_HEIGHTS_A_REPEAT = 3.0


def render(city: City, poses: Poses, camera: Camera, conditions: Conditions) -> Tensor:
    """(N, H, W, 3) uint8 sRGB pictures, on the city's device.

    A pixel shows what its centre sees; where its samples see several quads, their mean (the
    multi-sample anti-aliasing of graphics hardware). Textures are filtered to the pixel's
    footprint. Pictures are independent of each other: a batch equals its single pictures.
    """
    lights = _Lights(city, conditions)
    return torch.stack(
        [
            _photograph(city, centre, rotation, camera, lights)
            for centre, rotation in zip(poses.centre, poses.rotation, strict=True)
        ]
    )


def depth_map(city: City, poses: Poses, camera: Camera) -> Tensor:
    """(N, H, W) float32 m along the optical axis at pixel centres; infinite in the sky."""
    maps = []
    for centre, rotation in zip(poses.centre, poses.rotation, strict=True):
        view = _View(city, centre, rotation, camera)
        seen = view.seen()
        depth = torch.full((camera.height * camera.width,), torch.inf, device=seen.device)
        pixel = (seen.view(-1) >= 0).nonzero()[:, 0]
        x, y = _centres(pixel, camera.width)
        inverse = _affine(view.nearness.float(), seen.view(-1)[pixel], x, y)
        depth[pixel] = 1.0 / inverse
        maps.append(depth.view(camera.height, camera.width))
    return torch.stack(maps)


class _View:
    """The quads that may appear to one camera, and image coordinates' maps onto them."""

    def __init__(
        self, city: City, centre: np.ndarray, rotation: np.ndarray, camera: Camera
    ) -> None:
        quads, device = city.quads, city.quads.corner.device
        turn = torch.from_numpy(camera.intrinsics @ rotation).to(device)
        place = torch.from_numpy(centre).to(device)
        corners = (_corners(city) - place) @ turn.T
        relative = quads.corner - place
        offset = (_normals(city) * relative).sum(1)
        self.index = _in_view(corners, offset, camera).nonzero()[:, 0]
        self.camera, self.place, self.device = camera, place, device
        self.corners = corners[self.index]
        self.ray = torch.linalg.inv(turn)  # image point (x, y, 1) to a ray of unit depth
        relative = relative[self.index]
        # On the quad's plane, 1 / depth, u / depth and v / depth are affine in (x, y).
        self.nearness = (_normals(city)[self.index] @ self.ray) / offset[self.index, None]
        u, v = quads.axis_u[self.index], quads.axis_v[self.index]
        self.u = u @ self.ray - (u * relative).sum(1, keepdim=True) * self.nearness
        self.v = v @ self.ray - (v * relative).sum(1, keepdim=True) * self.nearness

    def seen(self) -> Tensor:
        """(H, W) index into this view's quads, or -1 for the sky."""
        return rasterise(self.corners, self.nearness, self.camera.width, self.camera.height)


@lru_cache(maxsize=2)
def _corners(city: City) -> Tensor:
    return city.quads.corners()


@lru_cache(maxsize=2)
def _normals(city: City) -> Tensor:
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


def _photograph(
    city: City, centre: np.ndarray, rotation: np.ndarray, camera: Camera, lights: _Lights
) -> Tensor:
    view = _View(city, centre, rotation, camera)
    seen = view.seen()
    # Most pixels see one quad and are shaded once, at their centre.
    pixel, sample, quad = resample(seen, view.corners, view.nearness, _SAMPLES)
    x, y = _centres(torch.arange(seen.numel(), device=seen.device), camera.width)
    offsets = torch.tensor(_SAMPLES, device=seen.device)[sample]
    colour = _shade(
        city,
        view,
        torch.cat([seen.view(-1), quad]),
        torch.cat([x, x[pixel] + offsets[:, 0]]),
        torch.cat([y, y[pixel] + offsets[:, 1]]),
        lights,
    ).clamp_(0.0, 1.0)
    picture, extra = colour[:, : seen.numel()], colour[:, seen.numel() :]
    rows, where = torch.unique(pixel, return_inverse=True)
    others = picture[:, None, rows].repeat(1, len(_SAMPLES), 1)
    others[:, sample, where] = extra
    picture[:, rows] = (picture[:, rows] + others.sum(1)) / (1 + len(_SAMPLES))
    picture = picture.sqrt().mul_(255.0).round_()  # linear light to the display's gamma, 2
    picture = picture.to(torch.uint8).view(3, camera.height, camera.width)
    return picture.permute(1, 2, 0).contiguous()


def _shade(city: City, view: _View, seen: Tensor, x: Tensor, y: Tensor, lights: _Lights) -> Tensor:
    """(3, n) linear colours at n image points that see the given quads of a view."""
    colour = torch.empty((3, len(seen)), device=seen.device)
    sky = (seen < 0).nonzero()[:, 0]
    solid = (seen >= 0).nonzero()[:, 0]
    colour[:, sky] = _sky(city.stains, view.ray, x[sky], y[sky], lights)
    colour[:, solid] = _surface(city, view, seen[solid], x[solid], y[solid], lights)
    return colour


def _surface(
    city: City, view: _View, seen: Tensor, x: Tensor, y: Tensor, lights: _Lights
) -> Tensor:
    quads = city.quads
    quad = view.index[seen]
    maps = torch.cat([view.nearness, view.u, view.v], 1).float().T.contiguous()
    nx, ny, nc, ux, uy, uc, vx, vy, vc = (row[seen] for row in maps)
    depth = 1.0 / (nx * x + ny * y + nc).clamp(min=1e-5)
    width, height = (side[quad] for side in quads.extent.T.contiguous())
    u = (ux * x + uy * y + uc) * depth
    v = (vx * x + vy * y + vc) * depth
    # The footprint: how far u and v move over one pixel.
    du = depth * torch.hypot(ux - u * nx, uy - u * ny)
    dv = depth * torch.hypot(vx - v * nx, vy - v * ny)
    u, v = torch.minimum(u.clamp(min=0), width), torch.minimum(v.clamp(min=0), height)

    material = quads.material[quad]
    repeat = 1.0 / MATERIAL_METRES
    clad = city.materials.sample(material, u * repeat, v * repeat, du * repeat, dv * repeat)
    grey = clad[0] * 2.0
    tint = quads.tint.T.contiguous()
    albedo = torch.stack([grey * row[quad] for row in tint])
    _lay_tiles(city, quad, u / width, v / height, du / width, dv / height, albedo)
    repeat = 1.0 / STAIN_METRES
    origin_u, origin_v = (row[quad] for row in quads.stain_origin.T.contiguous())
    stains = city.stains.sample(
        torch.zeros_like(quad),
        u * repeat + origin_u,
        v * repeat + origin_v,
        du * repeat,
        dv * repeat,
    )
    for channel in range(3):
        albedo[channel] *= stains[channel] + 0.5
    light = lights.on(city, view, quad, x, y, depth)
    colour = albedo.square_().mul_(light)
    clear = torch.exp(depth * (-1.0 / lights.conditions.haze_distance_m))
    return torch.lerp(lights.haze[:, None], colour, clear)


def _lay_tiles(
    city: City, quad: Tensor, s: Tensor, t: Tensor, ds: Tensor, dt: Tensor, albedo: Tensor
) -> None:
    """Lay the quads' tiles over their material, in place. s, t: 0..1 across the whole quad."""
    quads = city.quads
    columns, rows = (axis[quad] for axis in quads.grid.T.contiguous())
    tiled = (columns > 0).nonzero()[:, 0]
    quad, columns, rows = quad[tiled], columns[tiled], rows[tiled]
    s, t = s[tiled] * columns, t[tiled] * rows
    column = torch.minimum(s.long(), columns - 1)
    row = torch.minimum(t.long(), rows - 1)
    tile = quads.tiles[quads.first_tile[quad] + row * columns + column]
    there = (tile > 0).nonzero()[:, 0]
    tiled, tile = tiled[there], tile[there]
    *colour, cover = city.tiles.sample(
        tile,
        (s - column)[there],
        (t - row)[there],
        ds[tiled] * columns[there],
        dt[tiled] * rows[there],
    )
    for channel in range(3):
        albedo[channel, tiled] = torch.lerp(albedo[channel, tiled], colour[channel], cover)


def _sky(stains: TextureArray, ray: Tensor, x: Tensor, y: Tensor, lights: _Lights) -> Tensor:
    """(3, n): a gradient from horizon to zenith, and clouds on a plane high above."""
    east, north, up = (row[0] * x + row[1] * y + row[2] for row in ray.float())
    length = torch.sqrt(east * east + north * north + up * up)
    rise = (up / length).clamp(min=0.0)
    blue = torch.lerp(lights.haze[:, None], lights.zenith[:, None], rise.sqrt())
    scale = 1.0 / (_CLOUD_HEIGHTS_A_REPEAT * up.clamp(min=0.02 * length))
    footprint = ray[:, 0].norm().float() * scale
    clouds = stains.sample(
        torch.zeros(len(x), dtype=torch.long, device=x.device),
        east * scale, north * scale, footprint, footprint,
    )[3]  # fmt: skip
    cover = lights.conditions.cloud_cover
    density = ((clouds - (0.75 - 0.5 * cover)) * 4.0).clamp(0.0, 1.0)
    density = density * (rise * 6.0).clamp(0.0, 1.0) * 0.9
    return torch.lerp(blue, lights.cloud[:, None], density)


class _Lights:
    """The light of given conditions in a city, shadows included."""

    def __init__(self, city: City, conditions: Conditions) -> None:
        device = city.quads.corner.device
        self.conditions = conditions
        normals = _normals(city)
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
        self.shadows = _shadow_map(city, conditions) if conditions.sun_elevation_deg > 0 else None

    def on(
        self, city: City, view: _View, quad: Tensor, x: Tensor, y: Tensor, depth: Tensor
    ) -> Tensor:
        """(3, n) light at the places that n image points see."""
        light = torch.stack([row[quad] for row in self.ambient])
        if self.shadows is None:
            return light
        lit = self.shadows.visible(view, x, y, depth)
        for channel in range(3):
            light[channel] += lit * self.direct[channel][quad]
        return light


def _colour(value: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(value).float().to(device)


class _ShadowMap:
    """How near the sun the nearest surface is, on a parallel projection along the sun's rays."""

    def __init__(self, city: City, conditions: Conditions) -> None:
        corners = _corners(city)[1:]  # the first quad is the open country
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
        facing = _normals(city)[1:] @ sun > 1e-6
        points = points[facing]
        # Nearness is affine in the map's coordinates: through three corners of each quad.
        image = torch.cat([points[..., :2], torch.ones_like(points[..., :1])], -1)
        plane = torch.linalg.solve(image[:, :3], points[:, :3, 2:])[..., 0]
        seen = rasterise(image, plane, _SHADOW_SIZE, _SHADOW_SIZE).view(-1)
        pixel = torch.arange(len(seen), device=seen.device)
        x, y = _centres(pixel, _SHADOW_SIZE)
        near = _affine(plane.float(), seen.clamp(min=0), x, y)
        self.nearness = torch.where(seen >= 0, near, torch.zeros_like(near))

    def visible(self, view: _View, x: Tensor, y: Tensor, depth: Tensor) -> Tensor:
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


@lru_cache(maxsize=2)
def _shadow_map(city: City, conditions: Conditions) -> _ShadowMap:
    return _ShadowMap(city, conditions)


def _centres(pixel: Tensor, width: int) -> tuple[Tensor, Tensor]:
    return (pixel % width).float() + 0.5, (pixel // width).float() + 0.5


def _affine(maps: Tensor, index: Tensor, x: Tensor, y: Tensor) -> Tensor:
    a, b, c = (column[index] for column in maps.T.contiguous())
    return a * x + b * y + c
