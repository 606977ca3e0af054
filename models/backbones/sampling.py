"""Resampling as products with matrices, for graphs that are exported for images of all sizes.

The matrices hold the weights that `torch.nn.functional.interpolate` computes inside. Exchange
formats have operators of their own for it, and each runtime has its own view of their borders and
kernels; sums of products mean the same everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ANTIALIASED, _PLAIN = -0.5, -0.75  # the cubic kernels' parameter, as torch chooses it


def resampled(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(N, C, H, W) maps -> (N, C, h, w), by matrices (h, H) of the rows, (w, W) of the columns."""
    return rows @ (maps @ columns.T)


def antialiased(length: int, size: int, mode: str) -> Tensor:
    """The weights (size, length), float32, of antialiased resampling by `bilinear` or `bicubic`.

    A kernel is as wide as a new cell where that is larger than an old one, and its weights are
    brought to the sum 1, at the border too.
    """
    scale = _number(length) / _number(size)
    width = scale.clamp(min=1)
    centre = (_places(size) + 0.5) * scale
    away = (_places(length) + 0.5 - centre[:, None]).abs() / width
    weights = (1 - away).clamp(min=0) if mode == "bilinear" else _cubic(away, _ANTIALIASED)
    return (weights / weights.sum(dim=1, keepdim=True)).float()


def bicubic(length: int, size: int, scale: Tensor) -> Tensor:
    """The weights (size, length), float32, of bicubic resampling without antialiasing.

    `scale`, a number in float64, is that of new cells to an old one; it may differ from `size` /
    `length`. What lies beyond the border is the border's cell (Keys, 1981, with a = -0.75).
    """
    place = (_places(size) + 0.5) / scale - 0.5
    first = place.floor()
    old = _places(length)
    weights = torch.zeros_like(place)[:, None] * old
    for tap in (-1, 0, 1, 2):
        cell = (first + tap).clamp(min=0).minimum(old[-1])
        weight = _cubic((place - first - tap).abs(), _PLAIN)
        weights = weights + (cell[:, None] == old).double() * weight[:, None]
    return weights.float()


def unchanged(length: int, size: int) -> Tensor:
    """The (size, length) matrix that takes each cell as it is."""
    return (_places(size)[:, None] == _places(length)).float()


def _cubic(away: Tensor, a: float) -> Tensor:
    """Keys' cubic convolution kernel at a distance in cells, 0 from 2 on."""
    near = ((a + 2) * away - (a + 3)) * away * away + 1
    far = ((away - 5) * away + 8) * away * a - 4 * a
    return torch.where(away < 1, near, torch.where(away < 2, far, torch.zeros_like(far)))


def _places(length: int) -> Tensor:
    return torch.arange(length).double()


def _number(length: int) -> Tensor:
    return torch.scalar_tensor(length, dtype=torch.float64)
