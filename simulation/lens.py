"""The camera's effects on the light: exposure, colours, blur, noise and distortion."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, grid_sample, interpolate, pad

_KERNEL = 9  # px, of the blur
_MOST_GAIN = 40.0

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Lenses:
    """The settings of N photographs; every array is (N,) but `white` (N, 3)."""

    exposure: Array  # the mean grey level aimed at, 0..1
    white: Array  # gains of red, green and blue
    saturation: Array
    contrast: Array
    distortion: Array  # k1, radii in half widths; below 0: barrel
    vignette: Array  # light lost in the corners, 0..1
    focus: Array  # px, standard deviation of the blur
    motion: Array  # px, length of the smear
    motion_deg: Array
    noise: Array  # standard deviation at middle grey, 0..1
    bloom: Array  # share of the light that spreads
    flakes: Array  # share of the picture with snow falling
    streaks: Array  # share of the picture with rain falling
    seeds: NDArray[np.int64]  # of each photograph's noise

    def __len__(self) -> int:
        return len(self.exposure)

    def __getitem__(self, rows: slice) -> Lenses:
        return Lenses(**{each.name: getattr(self, each.name)[rows] for each in fields(self)})


def draw_lenses(
    count: int,
    rng: np.random.Generator,
    *,
    exposure: float,
    dark: bool = False,
    flakes: float = 0.0,
    streaks: float = 0.0,
) -> Lenses:
    """The settings of `count` photographs by one camera: alike, yet each its own.

    exposure: as in `Weather`. dark: by night, where pictures are noisier and smeared more often.
    """

    def each(middle: float, spread: float) -> Array:
        return middle + rng.normal(0.0, spread, count)

    warm, tint = rng.normal(0, 0.075), rng.normal(0, 0.03)
    warmth, green = each(warm, 0.02), each(tint, 0.01)
    grey = rng.random() < 0.04
    smeared = rng.random(count) < (0.4 if dark else 0.15)
    noisy = rng.uniform(0.008, 0.04) if dark else rng.uniform(0.002, 0.025)
    return Lenses(
        exposure=np.clip(each(exposure, 0.03), 0.08, 0.8),
        white=np.exp(np.stack([warmth, green, -warmth], 1)),
        saturation=np.full(count, 0.0) if grey else each(rng.uniform(0.65, 1.25), 0.03).clip(0),
        contrast=each(rng.uniform(0.85, 1.25), 0.03),
        distortion=np.full(count, rng.uniform(-0.16, 0.04)),
        vignette=np.full(count, rng.uniform(0.0, 0.45)),
        focus=np.abs(each(rng.uniform(0.2, 0.9), 0.08)),
        motion=np.where(smeared, rng.uniform(1.5, 6.0, count), 0.0),
        motion_deg=rng.normal(0.0, 25.0, count),
        noise=np.abs(each(noisy, 0.15 * noisy)),
        bloom=np.full(count, rng.uniform(0.02, 0.12) if dark else rng.uniform(0.0, 0.05)),
        flakes=np.full(count, flakes),
        streaks=np.full(count, streaks),
        seeds=rng.integers(0, 2**62, count),
    )


def expose(light: Tensor, lenses: Lenses) -> Tensor:
    """(N, H, W, 3) uint8 photographs from the (N, 3, H, W) linear light of `radiance`.

    Deterministic: the noise comes from the seeds. A batch equals its single pictures but for
    rounding.
    """
    device = light.device

    def column(values: Array) -> Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).to(device)[:, None, None, None]

    noise = torch.stack([_noise(int(seed), light.shape[2:]) for seed in lenses.seeds]).to(device)
    if lenses.flakes.any() or lenses.streaks.any():
        light = _precipitation(light, noise, lenses)
    light = _bend(light, column(lenses.distortion))
    light = _spread(light, column(lenses.bloom))
    light = _blur(light, lenses)
    light = light * (1 - column(lenses.vignette) * _radius(light).square())
    white = torch.from_numpy(lenses.white.astype(np.float32)).to(device)[:, :, None, None]
    # The eye of the meter: the mean of the display's values, not of the light.
    level = light.mean(1, keepdim=True).clamp(0.0, 1.2).sqrt().mean((1, 2, 3), keepdim=True)
    gain = (column(lenses.exposure) / level.clamp(min=1e-3)).square().clamp(0.1, _MOST_GAIN)
    light = light * gain * white
    # Shot noise grows with the root of the light, and the gain lifts what the sensor adds.
    sigma = column(lenses.noise) * (0.3 * gain.sqrt().clamp(max=3.0) + light.clamp(0, 1).sqrt())
    shown = (light.clamp(min=0.0).sqrt() + sigma * noise).clamp(min=0.0)
    shown = torch.where(shown > 0.8, 1 - 0.2 * torch.exp((0.8 - shown) / 0.2), shown)  # a shoulder
    middle = shown.mean(1, keepdim=True)
    shown = middle + column(lenses.saturation) * (shown - middle)
    mean = shown.mean((1, 2, 3), keepdim=True)
    shown = mean + column(lenses.contrast) * (shown - mean)
    return shown.clamp_(0.0, 1.0).mul_(255.0).round_().to(torch.uint8).permute(0, 2, 3, 1)


def _noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    height, width = shape
    grain = torch.randn((3, height, width), generator=generator)
    # A camera's own smoothing leaves grain of more than a pixel; its deviation is 1.
    return (0.6 * grain + 1.2 * avg_pool2d(grain, 3, 1, 1)) / 0.824


def _radius(light: Tensor) -> Tensor:
    """(H, W) distance from the centre, 1 in the corners."""
    height, width = light.shape[2:]
    y = torch.linspace(-1, 1, height, device=light.device)[:, None] * (height / width)
    x = torch.linspace(-1, 1, width, device=light.device)[None]
    return torch.sqrt(x * x + y * y) / float(np.hypot(1.0, height / width))


def _bend(light: Tensor, k1: Tensor) -> Tensor:
    """Radial distortion, scaled so that the picture stays full; its border is cut off."""
    height, width = light.shape[2:]
    y = torch.linspace(-1, 1, height, device=light.device)[:, None].expand(height, width)
    x = torch.linspace(-1, 1, width, device=light.device)[None].expand(height, width)
    square = x * x + (y * height / width) ** 2
    most = 1.0 + (height / width) ** 2
    k = k1[:, 0]
    factor = (1 - k * square) / (1 - k.clamp(max=0.0) * most)
    grid = torch.stack([x, y], -1)[None] * factor[..., None]
    return grid_sample(light, grid, padding_mode="border", align_corners=True)


def _spread(light: Tensor, share: Tensor) -> Tensor:
    """Glare: a share of the light, that of lamps above all, spreads around its source."""
    coarse = avg_pool2d(light, 8, 8, ceil_mode=True)
    for _ in range(2):
        coarse = avg_pool2d(pad(coarse, (2, 2, 2, 2), "replicate"), 5, 1)
    glare = interpolate(coarse, size=light.shape[2:], mode="bilinear", align_corners=False)
    return light + share * (glare - light.clamp(max=1.0))


def _blur(light: Tensor, lenses: Lenses) -> Tensor:
    """Defocus and motion blur: one kernel a photograph."""
    reach = _KERNEL // 2
    offset = np.arange(-reach, reach + 1)
    x, y = np.meshgrid(offset, offset)
    turn = np.radians(lenses.motion_deg)[:, None, None, None]
    steps = np.linspace(-0.5, 0.5, 9)[:, None, None]
    length = lenses.motion[:, None, None, None]
    sigma = np.maximum(lenses.focus, 0.15)[:, None, None, None]
    away = (x - length * steps * np.cos(turn)) ** 2 + (y - length * steps * np.sin(turn)) ** 2
    kernel = np.exp(-0.5 * away / sigma**2).sum(1)
    kernel /= kernel.sum((1, 2), keepdims=True)
    count, channels = light.shape[:2]
    weights = torch.from_numpy(kernel.astype(np.float32)).to(light.device)
    weights = weights.repeat_interleave(channels, 0)[:, None]
    flat = pad(light, (reach,) * 4, "replicate").view(1, count * channels, *_grown(light, reach))
    return conv2d(flat, weights, groups=count * channels).view(light.shape)


def _grown(light: Tensor, reach: int) -> tuple[int, int]:
    return light.shape[2] + 2 * reach, light.shape[3] + 2 * reach


def _precipitation(light: Tensor, noise: Tensor, lenses: Lenses) -> Tensor:
    """Flakes as soft dots and rain as steep streaks before the scene, as bright as its mean."""
    mean = light.mean((1, 2, 3), keepdim=True)
    for share, length, width, cover in (
        (lenses.flakes, 1, 1.0, 0.85),
        (lenses.streaks, 15, 0.45, 0.16),
    ):
        if not share.any():
            continue
        # Where normal noise is beyond its quantile: that share of the pixels.
        chance = torch.special.erfinv(1 - 2 * torch.from_numpy(share.astype(np.float32))) * 2**0.5
        drops = (noise[:, :1] > chance.to(light.device)[:, None, None, None]).float()
        offset = torch.arange(-10, 11, device=light.device).float()
        y, x = torch.meshgrid(offset, offset, indexing="ij")
        line = torch.exp(-0.5 * ((x + 0.15 * y) / width) ** 2) * (y.abs() * 2 <= length + 2 * width)
        kernel = (line * torch.exp(-0.5 * (y / (0.5 * length + width)) ** 2))[None, None]
        veil = (conv2d(drops, kernel, padding=10) * cover).clamp(0.0, cover)
        light = torch.lerp(light, 1.25 * mean.expand_as(light), veil)
    return light
