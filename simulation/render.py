"""Photographs of a city: `render(city, poses, camera, conditions)`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vladmap.simulation.camera import Camera, Poses
from vladmap.simulation.city import City
from vladmap.simulation.conditions import Conditions
from vladmap.simulation.lights import Lights
from vladmap.simulation.materials import MATERIAL_METRES, STAIN_METRES
from vladmap.simulation.raster import resample
from vladmap.simulation.textures import TextureArray
from vladmap.simulation.views import View, affine, centres

# A pixel's further coverage samples, relative to its centre.
_SAMPLES = ((-0.36, -0.13), (0.29, -0.25), (0.07, 0.38))
_FEW_SAMPLES = ((0.27, 0.24),)
_BRIGHTEST = 8.0
_CLOUD_HEIGHTS_A_REPEAT = 3.0
_CLOUDS_SEEN_M = 300.0  # in thicker haze than this clouds fade


def render(city: City, poses: Poses, camera: Camera, conditions: Conditions) -> Tensor:
    """(N, H, W, 3) uint8 sRGB pictures, on the city's device.

    A pixel shows what its centre sees; where its samples see several quads, their mean (the
    multi-sample anti-aliasing of graphics hardware). Textures are filtered to the pixel's
    footprint. Pictures are independent of each other: a batch equals its single pictures.
    """
    lights = Lights(city, conditions)
    pictures = []
    for centre, rotation in zip(poses.centre, poses.rotation, strict=True):
        linear = _picture(city, centre, rotation, camera, lights, _SAMPLES, 1.0)
        levels = linear.sqrt().mul_(255.0).round_()  # linear light to the display's gamma, 2
        pictures.append(levels.to(torch.uint8).permute(1, 2, 0).contiguous())
    return torch.stack(pictures)


def radiance(city: City, poses: Poses, cameras: Sequence[Camera], conditions: Conditions) -> Tensor:
    """(N, 3, H, W) float32 linear light that N cameras of one size receive, for a lens to expose.

    Lamps and the like are brighter than white: values go from 0 to 8. Two coverage samples a
    pixel, where `render` takes four: speed before smoothness.
    """
    lights = Lights(city, conditions)
    return torch.stack(
        [
            _picture(city, centre, rotation, camera, lights, _FEW_SAMPLES, _BRIGHTEST)
            for centre, rotation, camera in zip(poses.centre, poses.rotation, cameras, strict=True)
        ]
    )


def depth_map(city: City, poses: Poses, camera: Camera) -> Tensor:
    """(N, H, W) float32 m along the optical axis at pixel centres; infinite in the sky."""
    maps = []
    for centre, rotation in zip(poses.centre, poses.rotation, strict=True):
        view = View(city, centre, rotation, camera)
        seen = view.seen()
        depth = torch.full((camera.height * camera.width,), torch.inf, device=seen.device)
        pixel = (seen.view(-1) >= 0).nonzero()[:, 0]
        x, y = centres(pixel, camera.width)
        inverse = affine(view.nearness.float(), seen.view(-1)[pixel], x, y)
        depth[pixel] = 1.0 / inverse
        maps.append(depth.view(camera.height, camera.width))
    return torch.stack(maps)


def quads_seen(city: City, pose: Poses, camera: Camera) -> Tensor:
    """(H, W) int64: which of the city's quads the centre of each pixel sees, from one pose; -1:
    the sky."""
    view = View(city, pose.centre[0], pose.rotation[0], camera)
    seen = view.seen()
    index = torch.cat([view.index, view.index.new_full((1,), -1)])
    return index[seen]  # -1 takes the last


def _picture(
    city: City,
    centre: np.ndarray,
    rotation: np.ndarray,
    camera: Camera,
    lights: Lights,
    samples: tuple[tuple[float, float], ...],
    brightest: float,
) -> Tensor:
    """(3, H, W) linear light, each sample of it clamped to `brightest`."""
    view = View(city, centre, rotation, camera)
    seen = view.seen()
    # Most pixels see one quad and are shaded once, at their centre.
    pixel, sample, quad = resample(seen, view.corners, view.nearness, samples)
    x, y = centres(torch.arange(seen.numel(), device=seen.device), camera.width)
    offsets = torch.tensor(samples, device=seen.device)[sample]
    colour = _shade(
        city,
        view,
        torch.cat([seen.view(-1), quad]),
        torch.cat([x, x[pixel] + offsets[:, 0]]),
        torch.cat([y, y[pixel] + offsets[:, 1]]),
        lights,
    ).clamp_(0.0, brightest)
    picture, extra = colour[:, : seen.numel()], colour[:, seen.numel() :]
    rows, where = torch.unique(pixel, return_inverse=True)
    others = picture[:, None, rows].repeat(1, len(samples), 1)
    others[:, sample, where] = extra
    picture[:, rows] = (picture[:, rows] + others.sum(1)) / (1 + len(samples))
    return picture.view(3, camera.height, camera.width)


def _shade(city: City, view: View, seen: Tensor, x: Tensor, y: Tensor, lights: Lights) -> Tensor:
    """(3, n) linear colours at n image points that see the given quads of a view."""
    colour = torch.empty((3, len(seen)), device=seen.device)
    sky = (seen < 0).nonzero()[:, 0]
    solid = (seen >= 0).nonzero()[:, 0]
    colour[:, sky] = _sky(city.stains, view.ray, x[sky], y[sky], lights)
    colour[:, solid] = _surface(city, view, seen[solid], x[solid], y[solid], lights)
    return colour


def _surface(city: City, view: View, seen: Tensor, x: Tensor, y: Tensor, lights: Lights) -> Tensor:
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
    shine = _lay_tiles(city, quad, u / width, v / height, du / width, dv / height, albedo)
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
    if lights.conditions.snow > 0:
        lights.cover_with_snow(quad, stains, albedo)
    light = lights.on(city, view, quad, x, y, depth)
    colour = albedo.square_().mul_(light)
    if lights.conditions.wet > 0:
        lights.wet(view, quad, x, y, colour)
    if lights.glow is not None:
        colour += lights.glow[:, quad]
        if shine is not None:
            colour += shine * lights.conditions.lamps
    clear = torch.exp(depth * (-1.0 / lights.conditions.haze_distance_m))
    return torch.lerp(lights.haze[:, None], colour, clear)


def _lay_tiles(
    city: City, quad: Tensor, s: Tensor, t: Tensor, ds: Tensor, dt: Tensor, albedo: Tensor
) -> Tensor | None:
    """Lay the quads' tiles over their material, in place. s, t: 0..1 across the whole quad.

    Returns the (3, n) light that lamps behind them send through, or None where none is lit.
    """
    quads = city.quads
    columns, rows = (axis[quad] for axis in quads.grid.T.contiguous())
    tiled = (columns > 0).nonzero()[:, 0]
    quad, columns, rows = quad[tiled], columns[tiled], rows[tiled]
    s, t = s[tiled] * columns, t[tiled] * rows
    column = torch.minimum(s.long(), columns - 1)
    row = torch.minimum(t.long(), rows - 1)
    slot = quads.first_tile[quad] + row * columns + column
    tile = quads.tiles[slot]
    there = (tile > 0).nonzero()[:, 0]
    tiled, tile = tiled[there], tile[there]
    place = (
        (s - column)[there],
        (t - row)[there],
        ds[tiled] * columns[there],
        dt[tiled] * rows[there],
    )
    *colour, cover = city.tiles.sample(tile, *place)
    for channel in range(3):
        albedo[channel, tiled] = torch.lerp(albedo[channel, tiled], colour[channel], cover)
    if city.lit is None:
        return None
    glass = city.glass.sample(tile, *place)[0]
    shine = torch.zeros_like(albedo)
    for channel in range(3):
        # Curtains, goods and lettering are seen against the light.
        through = 0.3 + 0.7 * colour[channel]
        shine[channel, tiled] = city.lit[slot[there], channel] * glass * through
    return shine


def _sky(stains: TextureArray, ray: Tensor, x: Tensor, y: Tensor, lights: Lights) -> Tensor:
    """(3, n): a gradient from horizon to zenith, and clouds on a plane high above."""
    east, north, up = (row[0] * x + row[1] * y + row[2] for row in ray.float())
    length = torch.sqrt(east * east + north * north + up * up)
    rise = (up / length).clamp(min=0.0)
    blue = torch.lerp(lights.haze[:, None], lights.zenith[:, None], rise.sqrt())
    scale = 1.0 / (_CLOUD_HEIGHTS_A_REPEAT * up.clamp(min=0.02 * length))
    footprint = ray[:, 0].norm().float() * scale
    clouds = stains.sample(
        torch.zeros(len(x), dtype=torch.long, device=x.device),
        east * scale + lights.conditions.clouds_at[0],
        north * scale + lights.conditions.clouds_at[1],
        footprint,
        footprint,
    )[3]  # fmt: skip
    cover = lights.conditions.cloud_cover
    density = ((clouds - (0.75 - 0.5 * cover)) * 4.0).clamp(0.0, 1.0)
    density = density * (rise * 6.0).clamp(0.0, 1.0) * 0.9
    density = density * min(1.0, lights.conditions.haze_distance_m / _CLOUDS_SEEN_M)
    return torch.lerp(blue, lights.cloud[:, None], density)
