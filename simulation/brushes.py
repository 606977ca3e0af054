"""Functions by which tiles are painted.

All tiles of a kind are painted together, each with its own random numbers. Colours are in 0..1 over
texture coordinates s (right) and t (up).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vladmap.simulation.textures import fractal_noise

TILE_SIZE = 128


def coordinates(size: int) -> tuple[Tensor, Tensor]:
    """s and t, each (size, size), of the centres of the texels."""
    centres = (torch.arange(size, dtype=torch.float32) + 0.5) / size
    t, s = torch.meshgrid(centres, centres, indexing="ij")
    return s.contiguous(), t.contiguous()


def noise_texture(
    rng: np.random.Generator, size: int, cells: tuple[int, ...], weights: tuple[float, ...]
) -> Tensor:
    """(size, size) noise that repeats, of mean 0; `cells` and `weights` are of its octaves."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    return fractal_noise(size, cells, weights, generator)


def draws(rng: np.random.Generator, count: int, low: float, high: float) -> Tensor:
    """(count, 1, 1) uniform draws: one parameter of `count` tiles."""
    return torch.from_numpy(rng.uniform(low, high, (count, 1, 1)).astype(np.float32))


def choices(rng: np.random.Generator, count: int, values: tuple[float, ...]) -> Tensor:
    """(count, 1, 1) values, each chosen at random for one of `count` tiles."""
    return torch.from_numpy(rng.choice(np.array(values, np.float32), (count, 1, 1)))


def colours(rng: np.random.Generator, count: int, low: float, high: float) -> Tensor:
    """(count, 1, 1, 3) random colours of reduced saturation."""
    vivid = torch.from_numpy(rng.uniform(low, high, (count, 1, 1, 3)).astype(np.float32))
    return torch.lerp(vivid.mean(-1, keepdim=True), vivid, 0.6)


def band(x: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """1 where `x` is from `low` to `high`, else 0, with a linear transition of one texel."""
    return torch.minimum(x - low, high - x).mul_(TILE_SIZE).add_(0.5).clamp_(0.0, 1.0)


class Canvas:
    """`count` tiles painted together."""

    def __init__(self, count: int) -> None:
        self.s, self.t = coordinates(TILE_SIZE)
        self.colour = torch.zeros((count, *self.s.shape, 3))
        self.cover = torch.zeros((count, *self.s.shape))

    def fill(self, mask: Tensor, colour: Tensor) -> None:
        """Paint `colour` (count, 1 or S, 1 or S, 3) where mask (count, S, S) is 1."""
        opaque = torch.where(self.cover > 0, mask, (mask > 0).float())
        self.colour = torch.lerp(self.colour, colour.expand_as(self.colour), opaque[..., None])
        self.cover = torch.maximum(self.cover, mask.expand_as(self.cover))

    def shade(self, factor: Tensor) -> None:
        self.colour = self.colour * factor[..., None]

    def rectangle(
        self,
        s0: Tensor | float,
        s1: Tensor | float,
        t0: Tensor | float,
        t1: Tensor | float,
        colour: Tensor,
    ) -> Tensor:
        mask = band(self.s, s0, s1) * band(self.t, t0, t1)
        self.fill(mask.expand_as(self.cover), colour)
        return mask

    def finish(self) -> Tensor:
        """(count, S, S, 4): red, green, blue, cover."""
        return torch.cat([self.colour, self.cover[..., None]], -1)


def grain(rng: np.random.Generator, canvas: Canvas, amount: float) -> None:
    """Shade the whole canvas with noise, shifted for each tile."""
    size = canvas.s.shape[0]
    noise = noise_texture(rng, size, (16, 32, 64), (1.0, 1.0, 0.7))
    shifts = rng.integers(0, size, (canvas.cover.shape[0], 2))
    rolled = torch.stack([noise.roll((int(a), int(b)), (0, 1)) for a, b in shifts])
    canvas.shade(1 + amount * rolled)


def clutter(
    rng: np.random.Generator,
    canvas: Canvas,
    region: tuple[Tensor | float, Tensor | float, Tensor | float, Tensor | float],
    things: int,
    bright: tuple[float, float] = (0.05, 0.95),
) -> None:
    """Random rectangles inside a region (s0, s1, t0, t1): goods in a shop, things in a room."""
    count = canvas.cover.shape[0]
    s0, s1, t0, t1 = region
    for _ in range(things):
        width, height = draws(rng, count, 0.04, 0.2), draws(rng, count, 0.04, 0.22)
        left = s0 + draws(rng, count, 0.0, 0.9) * (s1 - s0)
        low = t0 + draws(rng, count, 0.0, 0.9) * (t1 - t0)
        right, high = left + width * (s1 - s0), low + height * (t1 - t0)
        colour = colours(rng, count, *bright)
        canvas.rectangle(left, _least(right, s1), low, _least(high, t1), colour)


def _least(a: Tensor, b: Tensor | float) -> Tensor:
    return torch.minimum(a, torch.as_tensor(b, dtype=a.dtype))
