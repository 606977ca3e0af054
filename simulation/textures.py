"""Texture arrays that are filtered anisotropically: a ripmap an image, sampled bilinearly."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

# A texel's four bytes lie in the four 16-bit lanes of an int64, so that one multiplication weighs
# all of its channels: 255 * 256, the largest weighted sum, still fits a lane.
_LANES = (0, 16, 32, 48)
# Bilinear weights are sixteenths: the four products add up to 256 exactly.
_STEPS = 16


@dataclass(frozen=True, eq=False)
class TextureArray:
    """Square textures of one size with their ripmaps, in one flat tensor.

    A ripmap (Larson & Shah, 1990) halves each axis on its own. Walls along a street are seen at
    grazing angles, where a pixel's footprint is long along one texture axis and short along the
    other: a mipmap would blur the short one away.
    """

    texels: Tensor  # (layers * stride,) int64, packed
    starts: Tensor  # (levels * levels,) int64: where level (i, j) starts within a layer
    size: int
    layers: int
    wraps: bool

    @property
    def levels(self) -> int:
        return self.size.bit_length()

    @classmethod
    def build(cls, images: Tensor, *, wraps: bool) -> TextureArray:
        """From (L, S, S, 4) float32 in 0..1, rows from the bottom; S is a power of two.

        `wraps`: the textures repeat; otherwise they are clamped at their borders.
        """
        layers, size = images.shape[:2]
        planes = images.permute(0, 3, 1, 2).contiguous()
        parts: list[Tensor] = []
        starts: list[int] = []
        length = 0
        for _ in range(size.bit_length()):
            across = planes
            for _ in range(size.bit_length()):
                starts.append(length)
                length += across.shape[2] * across.shape[3]
                parts.append(_pack(across).reshape(layers, -1))
                if across.shape[3] > 1:
                    across = avg_pool2d(across, (1, 2))
            if planes.shape[2] > 1:
                planes = avg_pool2d(planes, (2, 1))
        texels = torch.cat(parts, 1).reshape(-1)
        return cls(texels, torch.tensor(starts, device=texels.device), size, layers, wraps)

    def to(self, device: torch.device | str) -> TextureArray:
        return replace(self, texels=self.texels.to(device), starts=self.starts.to(device))

    def sample(self, layer: Tensor, s: Tensor, t: Tensor, ds: Tensor, dt: Tensor) -> list[Tensor]:
        """The four channels, each (n,) float32 in 0..1, at n places.

        layer: (n,) int64. s, t: (n,) places, 0 to 1 across a texture (right, up). ds, dt: (n,)
        the pixel's footprint along s and t, in the same unit.
        """
        level_s, level_t = self._level(ds), self._level(dt)
        start = self.starts[level_t * self.levels + level_s]
        start += layer * (self.texels.shape[0] // self.layers)
        left, right, weight_s, width = self._neighbours(s, level_s)
        below, above, weight_t, _ = self._neighbours(t, level_t)
        below = below * width + start
        above = above * width + start
        packed = self.texels[below + left] * ((_STEPS - weight_s) * (_STEPS - weight_t))
        packed += self.texels[below + right] * (weight_s * (_STEPS - weight_t))
        packed += self.texels[above + left] * ((_STEPS - weight_s) * weight_t)
        packed += self.texels[above + right] * (weight_s * weight_t)
        scale = 1.0 / (255 * _STEPS * _STEPS)
        return [((packed >> lane) & 0xFFFF).float() * scale for lane in _LANES]

    def _level(self, footprint: Tensor) -> Tensor:
        texels = (footprint * self.size).clamp(min=1.0)
        return torch.log2(texels).round_().long().clamp_(max=self.levels - 1)

    def _neighbours(self, place: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        size = self.size >> level
        steps = (place * (size * _STEPS) - _STEPS / 2).round_().long()
        low = steps // _STEPS
        weight = steps - low * _STEPS
        if self.wraps:  # sizes are powers of two
            return low & (size - 1), (low + 1) & (size - 1), weight, size
        last = size - 1
        low_clamped = torch.minimum(low.clamp(min=0), last)
        return low_clamped, torch.minimum((low + 1).clamp_(min=0), last), weight, size


def _pack(planes: Tensor) -> Tensor:
    levels = (planes.clamp(0, 1) * 255).round().long()
    return sum(
        (levels[:, channel] << lane for channel, lane in enumerate(_LANES)), levels.new_zeros(())
    )


def periodic_noise(size: int, cells: int, generator: torch.Generator) -> Tensor:
    """(size, size) periodic value noise: cells x cells values in -1..1, cubic between them."""
    values = torch.rand((cells, cells), generator=generator) * 2 - 1
    return _upsample(_upsample(values, size).T, size).T.contiguous()


def _upsample(values: Tensor, size: int) -> Tensor:
    """Periodic Catmull-Rom interpolation of the first axis to `size` rows."""
    cells = values.shape[0]
    place = torch.arange(size, dtype=torch.float32) * (cells / size)
    low = place.floor()
    x = (place - low)[:, None]
    index = low.long()
    a, b, c, d = (values[(index + shift) % cells] for shift in (-1, 0, 1, 2))
    return b + 0.5 * x * (c - a + x * (2 * a - 5 * b + 4 * c - d + x * (3 * (b - c) + d - a)))


def fractal_noise(
    size: int, cells: tuple[int, ...], weights: tuple[float, ...], generator: torch.Generator
) -> Tensor:
    """(size, size) weighted sum of octaves of periodic noise, standard deviation 1, mean 0."""
    noise = torch.zeros((size, size))
    for count, weight in zip(cells, weights, strict=True):
        noise += weight * periodic_noise(size, count, generator)
    return (noise - noise.mean()) / noise.std()
