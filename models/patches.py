"""Patch-NetVLAD: NetVLAD of every square patch of the feature map, from the same forward pass.

Hausler et al., "Patch-NetVLAD: Multi-Scale Fusion of Locally-Global Descriptors for Place
Recognition" (CVPR 2021).

As published, a patch's sum of residuals comes from an integral image. Here two banded matrix
products add up its rows and columns: the same sums, without the digits that differences of an
integral image's large float32 numbers lose, and at the speed of a matrix product.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from models.netvlad import NetVLAD


def patch_descriptors(
    aggregation: NetVLAD,
    features: Tensor,
    sizes: tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> list[Tensor]:
    """(N, D, H, W) maps -> for each patch size p in cells (N, (H - p + 1) * (W - p + 1), d).

    Rows are unit vectors, patches row by row at a stride of one cell. d is K * D, or the number of
    rows of the PCA-whitening `weight` (d, K * D) with `bias` (d). Raises ValueError where a map is
    smaller than a patch.
    """
    height, width = features.shape[2:]
    if max(sizes, default=0) > min(height, width):
        raise ValueError(
            f"patches of {max(sizes)} cells do not fit a feature map of {height} x {width}"
        )
    local, shares = aggregation.assign(features)
    rows: list[list[Tensor]] = [[] for _ in sizes]
    # An image at a time: the map of all residuals is K times as large as the feature map.
    for x, a in zip(local, shares, strict=True):
        a = a.T.reshape(height, width, -1)
        sums = a[..., None] * x.T.reshape(height, width, 1, -1)  # (H, W, K, D)
        for row, size in zip(rows, sizes, strict=True):
            residuals = _box_sums(sums.flatten(2), size).unflatten(1, sums.shape[2:])
            residuals -= _box_sums(a, size)[..., None] * aggregation.centres
            row.append(_finished(residuals, aggregation.floor, weight, bias))
    return [torch.stack(row) for row in rows]


def patch_centres(height: int, width: int, size: int, stride: int) -> Tensor:
    """Centres (P, 2) as x, y in pixels of the patches of a map of `height` x `width` cells.

    A cell at `stride` stands for as many pixels; the first pixel's centre is at 0, 0.
    """
    shift = (stride * size - 1) / 2
    y = stride * torch.arange(height - size + 1) + shift
    x = stride * torch.arange(width - size + 1) + shift
    grid = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([grid[1].flatten(), grid[0].flatten()], dim=1).float()


def _box_sums(grid: Tensor, size: int) -> Tensor:
    """(H, W, C) -> (P, C): sums over size x size windows."""
    height, width, channels = grid.shape
    rows, columns = _band(height, size, grid), _band(width, size, grid)
    down = (rows @ grid.reshape(height, -1)).view(-1, width, channels)
    return (columns @ down).flatten(0, 1)


def _band(length: int, size: int, like: Tensor) -> Tensor:
    """(length - size + 1, length) of ones where an output takes an input."""
    ones = torch.ones(length - size + 1, length, dtype=like.dtype, device=like.device)
    return ones.tril(size - 1).triu()


def _finished(
    residuals: Tensor, floor: float, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    """(P, K, D) sums, intra-normalised, brought to unit length, whitened: (P, d)."""
    norms = torch.linalg.vector_norm(residuals, dim=2, keepdim=True)
    residuals = residuals.div_(norms.clamp_(min=floor))
    rows = functional.normalize(residuals.flatten(1), dim=1)
    if weight is None:
        return rows
    return functional.normalize(functional.linear(rows, weight, bias), dim=1)
