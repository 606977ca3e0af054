"""Augmentation: simulates other light, weather, cameras and viewpoints in photographs.

The changes of each image are drawn from its own seed. The same seed gives the same picture, up to
rounding by one grey level, whatever else is in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Floats = NDArray[np.float64]
Seed = Sequence[int]

_BLUR_RADIUS = 7  # pixels
_GRID = 4  # cells a side of the fields that light and fog follow
_SMALLEST_SIDE = 100  # pixels of the long side that a low-resolution camera leaves
_LAMPS = 5

_LUMA = (0.299, 0.587, 0.114)
# JPEG's quantisation table of luminance (ITU-T T.81, annex K), in its zigzag's plain order
_QUANTISATION = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def augment(
    images: Tensor, seeds: Sequence[Seed], strength: float = 1.0, aligned: bool = False
) -> Tensor:
    """(B, H, W, 3) uint8 images, changed by their `seeds`, of the same shape and type.

    Each of these changes is applied to a share of the images, in this order: crop and perspective,
    uneven light, night, fog, occluding rectangles, white balance, gamma, contrast, colour, grey,
    blur, low resolution, noise, JPEG compression. `strength` scales their probability and their
    size; 0 changes nothing. With `aligned`, pixels keep their places: there is no crop and no
    occlusion. Raises ValueError for a strength outside 0 to 2.
    """
    if not 0 <= strength <= 2:
        raise ValueError(f"a strength of augmentation lies in 0 to 2, not {strength}")
    if strength == 0 or len(images) == 0:
        return images
    draws = _Draws([np.random.default_rng(list(seed)) for seed in seeds], strength)
    x = images.permute(0, 3, 1, 2).float() / 255
    for probability, change in _CHANGES:
        if aligned and change in (_warped, _hidden):
            continue
        rows = np.flatnonzero(draws.uniform(0, 1) < probability * strength)
        if len(rows):
            changed = change(x[rows], draws.only(rows))
            x = x.index_copy(0, torch.from_numpy(rows).to(x.device), changed.clamp(0, 1))
    return (255 * x).round().byte().permute(0, 2, 3, 1).contiguous()


def moved(
    images: Tensor, maps: Tensor, seeds: Sequence[Seed], share: float = 1.0
) -> tuple[Tensor, Tensor]:
    """(B, H, W, 3) uint8 images and their (B, C, h, w) feature maps, warped to other viewpoints.

    A `share` of the images is cropped to 28 to 100 % of the area, rotated and tilted by its seed;
    its map is warped in the same way.
    """
    draws = _Draws([np.random.default_rng(list(seed)) for seed in seeds], 1.0)
    rows = np.flatnonzero(draws.uniform(0, 1) < share)
    if not len(rows):
        return images, maps
    x = images[rows].permute(0, 3, 1, 2).float()
    drawn = _views(draws.only(rows), x.shape[3] / x.shape[2], cropped=0.72, jitter=0.2)
    views = _on(x, drawn, len(rows), 3, 3)
    chosen = torch.from_numpy(rows).to(x.device)
    pictures = _seen(x, views, "reflection").round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    return (
        images.index_copy(0, chosen, pictures),
        maps.index_copy(0, chosen, _seen(maps[rows], views.to(maps.dtype), "border")),
    )


class _Draws:
    """Random numbers of a batch, drawn image by image from generators of their own."""

    def __init__(self, generators: list[np.random.Generator], strength: float) -> None:
        self.strength = strength
        self._generators = generators

    def only(self, rows: NDArray[np.int64]) -> _Draws:
        """The draws for some of the images, from the same generators."""
        return _Draws([self._generators[row] for row in rows], self.strength)

    def uniform(self, low: float, high: float, *shape: int) -> Floats:
        """(B, *shape)."""
        return np.stack([g.uniform(low, high, shape) for g in self._generators])

    def normal(self, *shape: int) -> Floats:
        """(B, *shape), scaled by the strength."""
        return self.strength * np.stack([g.standard_normal(shape) for g in self._generators])

    def seeds(self) -> list[int]:
        return [int(g.integers(1 << 62)) for g in self._generators]


def _on(x: Tensor, values: Floats, *shape: int) -> Tensor:
    """`values` on the device of `x`, of `shape`, or (B, 1, ...) to broadcast over `x`."""
    tensor = torch.from_numpy(np.asarray(values, np.float32)).to(x.device)
    return tensor.reshape(shape or (len(x), *(1,) * (x.ndim - 1)))


def _field(x: Tensor, values: Floats) -> Tensor:
    """(B, C, g, g) numbers -> (B, C, H, W) by bilinear interpolation."""
    grid = torch.from_numpy(values.astype(np.float32)).to(x.device)
    return functional.interpolate(grid, x.shape[2:], mode="bilinear", align_corners=True)


def _warped(x: Tensor, draws: _Draws) -> Tensor:
    """A crop of 60 to 100 % of the area, turned and seen a little from the side."""
    height, width = x.shape[2:]
    views = _on(x, _views(draws, width / height), len(x), 3, 3)
    return _seen(x, views, "reflection")


def _views(draws: _Draws, aspect: float, cropped: float = 0.4, jitter: float = 0.08) -> Floats:
    """(B, 3, 3) homographies from places in the output to places in the input, both from -1 to 1.

    `aspect` is the input's width over its height, `cropped` the largest share of its area that is
    cut off; corners move by up to `jitter` of half a side.
    """
    strength = min(draws.strength, 1.0)
    scale = np.sqrt(1 - strength * draws.uniform(0, cropped))
    stretch = np.exp(strength * draws.uniform(-0.1, 0.1))
    half = np.stack([np.minimum(scale * stretch, 1), np.minimum(scale / stretch, 1)], axis=1)
    centre = (1 - half) * draws.uniform(-1, 1, 2)
    angle = np.radians(draws.normal() * 2)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    shifts = jitter * draws.strength * draws.uniform(-1, 1, 4, 2)
    targets = (corners + shifts) * half[:, None] + centre[:, None]
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    across, down = targets[..., 0] * aspect, targets[..., 1]
    targets = np.stack([(cosine * across - sine * down) / aspect, sine * across + cosine * down], 2)
    return _homographies(corners, targets)


def _seen(x: Tensor, views: Tensor, beyond: str) -> Tensor:
    """(B, C, H, W) images warped by (B, 3, 3) `views`; `beyond` is grid_sample's padding mode."""
    height, width = x.shape[2:]
    ys = (torch.arange(height, device=x.device) + 0.5) * 2 / height - 1
    xs = (torch.arange(width, device=x.device) + 0.5) * 2 / width - 1
    points = torch.stack(
        [
            xs.expand(height, width),
            ys[:, None].expand(height, width),
            torch.ones_like(xs).expand(height, width),
        ]
    ).flatten(1)
    mapped = views @ points
    grid = (mapped[:, :2] / mapped[:, 2:]).transpose(1, 2).reshape(len(x), height, width, 2)
    return functional.grid_sample(x, grid, padding_mode=beyond, align_corners=False)


def _homographies(sources: Floats, targets: Floats) -> Floats:
    """(B, 3, 3) that take (4, 2) sources to (B, 4, 2) targets."""
    count = len(targets)
    u, v = np.broadcast_to(sources, targets.shape).transpose(2, 0, 1)
    one, nil = np.ones_like(u), np.zeros_like(u)
    p, q = targets[..., 0], targets[..., 1]
    rows = np.concatenate(
        [
            np.stack([u, v, one, nil, nil, nil, -u * p, -v * p], axis=2),
            np.stack([nil, nil, nil, u, v, one, -u * q, -v * q], axis=2),
        ],
        axis=1,
    )
    solved = np.linalg.solve(rows, np.concatenate([p, q], axis=1)[..., None])[..., 0]
    return np.concatenate([solved, np.ones((count, 1))], axis=1).reshape(count, 3, 3)


def _lit(x: Tensor, draws: _Draws) -> Tensor:
    """Light and shade in large patches."""
    return x * _field(x, np.exp(0.35 * draws.normal(1, _GRID, _GRID)))


def _by_night(x: Tensor, draws: _Draws) -> Tensor:
    """Dark, all but grey, tinted blue or orange, with lamps that glow."""
    height, width = x.shape[2:]
    grey = _grey(x)
    dim = _on(x, draws.uniform(0.2, 0.55)) * (0.35 * x + 0.65 * grey) ** _on(
        x, draws.uniform(1.1, 1.8)
    )
    warmth = draws.uniform(-0.5, 0.6)
    tint = np.stack([1 + 0.5 * warmth, np.ones_like(warmth), 1 - 0.6 * warmth], axis=1)
    ys = torch.linspace(0, 1, height, device=x.device)[None, None, :, None]
    xs = torch.linspace(0, 1, width, device=x.device)[None, None, None, :]
    across = _on(x, draws.uniform(0, 1, _LAMPS), len(x), _LAMPS, 1, 1)
    down = _on(x, draws.uniform(0, 0.6, _LAMPS), len(x), _LAMPS, 1, 1)
    reach = _on(x, draws.uniform(0.01, 0.12, _LAMPS) ** 2, len(x), _LAMPS, 1, 1)
    power = _on(x, draws.uniform(0, 0.8, _LAMPS), len(x), _LAMPS, 1, 1)
    glow = power * torch.exp(-((xs - across).square() + (ys - down).square()) / reach)
    lamps = glow.sum(1, keepdim=True) * _on(x, np.array([1.0, 0.85, 0.6]), 1, 3, 1, 1)
    return dim * _on(x, tint, len(x), 3, 1, 1) + lamps * (0.4 + grey)


def _in_fog(x: Tensor, draws: _Draws) -> Tensor:
    """A veil of the sky's grey, thicker above, where most is far away."""
    above = np.linspace(1, 0, _GRID)[None, None, :, None]
    thickness = draws.uniform(0.2, 0.7)[:, None, None, None] * (
        0.5 + 0.7 * above + 0.15 * draws.normal(1, _GRID, _GRID)
    )
    share = _field(x, np.clip(thickness, 0, 0.92))
    veil = _on(x, draws.uniform(0.55, 0.95)) + _on(x, 0.02 * draws.normal(3), len(x), 3, 1, 1)
    return x * (1 - share) + veil * share


def _balanced(x: Tensor, draws: _Draws) -> Tensor:
    """Another white balance."""
    return x * _on(x, np.exp(0.15 * draws.normal(3)), len(x), 3, 1, 1)


def _exposed(x: Tensor, draws: _Draws) -> Tensor:
    """Another gamma."""
    gamma = np.exp(np.clip(0.35 * draws.normal(), -0.8, 0.8))
    return x.clamp(min=1e-4) ** _on(x, gamma)


def _contrasted(x: Tensor, draws: _Draws) -> Tensor:
    """Another contrast and brightness."""
    contrast = _on(x, np.exp(np.clip(0.25 * draws.normal(), -1, 1)))
    middle = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - middle) * contrast + middle + _on(x, 0.08 * draws.normal())


def _coloured(x: Tensor, draws: _Draws) -> Tensor:
    """Another hue and saturation."""
    return torch.einsum("bij,bjhw->bihw", _on(x, _hue(draws), len(x), 3, 3), x)


def _hue(draws: _Draws) -> Floats:
    """(B, 3, 3): colours turned about the grey axis, and drawn to it or away from it."""
    angle = np.radians(np.clip(12 * draws.normal(), -60, 60))[:, None, None]
    axis = np.full(3, 1 / math.sqrt(3))
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turn = (
        np.cos(angle) * np.eye(3)
        + np.sin(angle) * cross
        + (1 - np.cos(angle)) * np.outer(axis, axis)
    )
    saturation = np.exp(np.clip(0.4 * draws.normal(), -1.5, 0.7))[:, None, None]
    grey = np.ones((3, 1)) @ np.array([_LUMA])
    return saturation * turn + (1 - saturation) * grey


def _grey(x: Tensor) -> Tensor:
    red, green, blue = _LUMA
    return red * x[:, :1] + green * x[:, 1:2] + blue * x[:, 2:]


def _in_grey(x: Tensor, draws: _Draws) -> Tensor:
    return _grey(x).expand_as(x)


def _blurred(x: Tensor, draws: _Draws) -> Tensor:
    """Gaussian blur; different widths across and down resemble motion blur."""
    count, height, width = len(x), x.shape[2], x.shape[3]
    radius = min(_BLUR_RADIUS, height - 1, width - 1)
    sigma = draws.strength * draws.uniform(0.2, 2.0, 2) * draws.uniform(0.3, 1.3, 2)
    offsets = np.arange(-radius, radius + 1)
    kernels = np.exp(-(offsets**2) / (2 * np.maximum(sigma, 0.1)[..., None] ** 2))
    kernels /= kernels.sum(axis=2, keepdims=True)
    rows = _on(x, kernels[:, 0].repeat(3, axis=0), 3 * count, 1, 1, -1)
    columns = _on(x, kernels[:, 1].repeat(3, axis=0), 3 * count, 1, -1, 1)
    y = functional.pad(x, (radius,) * 4, mode="reflect").reshape(
        1, 3 * count, *(height + 2 * radius, width + 2 * radius)
    )
    y = functional.conv2d(functional.conv2d(y, rows, groups=3 * count), columns, groups=3 * count)
    return y.reshape(x.shape)


def _coarse(x: Tensor, draws: _Draws) -> Tensor:
    """Reduced to a low resolution and enlarged again."""
    height, width = x.shape[2:]
    most = max(height, width, _SMALLEST_SIDE)
    shares = np.exp(draws.uniform(math.log(_SMALLEST_SIDE), math.log(most))) / max(height, width)
    coarse = []
    for one, share in zip(x.split(1), np.minimum(shares, 1), strict=True):
        size = max(1, round(height * share)), max(1, round(width * share))
        small = functional.interpolate(one, size, mode="bilinear", antialias=True)
        coarse.append(functional.interpolate(small, (height, width), mode="bilinear"))
    return torch.cat(coarse)


def _noisy(x: Tensor, draws: _Draws) -> Tensor:
    """A sensor's noise."""
    generators = [torch.Generator(x.device).manual_seed(seed) for seed in draws.seeds()]
    noise = [torch.randn(x.shape[1:], generator=g, device=x.device) for g in generators]
    return x + _on(x, draws.strength * draws.uniform(0, 0.06)) * torch.stack(noise)


def _compressed(x: Tensor, draws: _Draws) -> Tensor:
    """JPEG's loss: the cosine transform of 8 x 8 blocks, quantised at a random quality."""
    count, _, height, width = x.shape
    quality = draws.uniform(15, 80)
    factor = np.where(quality < 50, 50 / quality, 2 - quality / 50)
    table = np.maximum(factor[:, None, None] * np.array(_QUANTISATION), 1) / 255
    steps = _on(x, table, count, 1, 1, 8, 1, 8)
    cosines = _on(x, _cosines(), 8, 8)
    y = functional.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate")
    blocks = y.reshape(count, 3, y.shape[2] // 8, 8, y.shape[3] // 8, 8)
    spectrum = torch.einsum("ui,bchiwj,vj->bchuwv", cosines, blocks, cosines)
    spectrum = (spectrum / steps).round() * steps
    y = torch.einsum("ui,bchuwv,vj->bchiwj", cosines, spectrum, cosines).reshape(y.shape)
    return y[:, :, :height, :width]


def _cosines() -> Floats:
    """The (8, 8) orthonormal matrix of the cosine transform, one frequency a row."""
    frequency, place = np.arange(8)[:, None], np.arange(8)
    matrix = np.cos(np.pi * (place + 0.5) * frequency / 8) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def _hidden(x: Tensor, draws: _Draws) -> Tensor:
    """A rectangle of one colour, as of a van that stands before the scene."""
    height, width = x.shape[2:]
    ys = torch.linspace(0, 1, height, device=x.device)[None, None, :, None]
    xs = torch.linspace(0, 1, width, device=x.device)[None, None, None, :]
    size = math.sqrt(draws.strength) * draws.uniform(0.08, 0.35, 2)
    low = draws.uniform(0, 1, 2) - size / 2
    left, top = (_on(x, low[:, side]) for side in range(2))
    right, bottom = (_on(x, (low + size)[:, side]) for side in range(2))
    inside = (xs >= left) & (xs <= right) & (ys >= top) & (ys <= bottom)
    return torch.where(inside, _on(x, draws.uniform(0, 1, 3), len(x), 3, 1, 1), x)


# (probability, change), in the physical order: viewpoint, light, camera, file.
_CHANGES: tuple[tuple[float, Callable[[Tensor, _Draws], Tensor]], ...] = (
    (0.8, _warped),
    (0.4, _lit),
    (0.15, _by_night),
    (0.15, _in_fog),
    (0.2, _hidden),
    (0.2, _hidden),
    (0.6, _balanced),
    (0.6, _exposed),
    (0.6, _contrasted),
    (0.5, _coloured),
    (0.15, _in_grey),
    (0.3, _blurred),
    (0.25, _coarse),
    (0.3, _noisy),
    (0.3, _compressed),
)
