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

_NUMBERS_AT_ONCE = 1 << 19


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
    found = [
        [
            _of_image(aggregation, x.view(-1, height, width), a, size, weight, bias)
            for x, a in zip(local, shares, strict=True)
        ]
        for size in sizes
    ]
    return [torch.stack(rows) for rows in found]


def patch_centres(height: int, width: int, size: int, stride: int) -> Tensor:
    """Centres (P, 2) as x, y in pixels of the patches of a map of `height` x `width` cells.

    A cell at `stride` stands for as many pixels; the first pixel's centre is at 0, 0.
    """
    shift = (stride * size - 1) / 2
    y = stride * torch.arange(height - size + 1) + shift
    x = stride * torch.arange(width - size + 1) + shift
    grid = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([grid[1].flatten(), grid[0].flatten()], dim=1).float()


def _of_image(
    aggregation: NetVLAD,
    local: Tensor,
    shares: Tensor,
    size: int,
    weight: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """(D, H, W) unit local descriptors and their shares (K, L) -> (P, d).

    Some clusters at a time: all residuals of a map are K times as large as the map, and what stays
    in the caches is computed twice as fast.
    """
    channels, height, width = local.shape
    local = local.permute(1, 2, 0).contiguous()[:, :, None]  # (H, W, 1, D)
    shares = shares.T.reshape(height, width, -1).contiguous()
    masses = _box_sums(shares, size)  # (P, K)
    clusters = shares.shape[2]
    step = max(1, _NUMBERS_AT_ONCE // local.numel())
    squares = torch.zeros(len(masses), 1, device=local.device)
    if weight is None:
        rows = torch.empty(len(masses), clusters * channels, device=local.device)
    else:
        rows = torch.zeros(len(masses), len(weight), device=local.device)
    for start in range(0, clusters, step):
        part = slice(start, start + step)
        sums = (shares[:, :, part, None] * local).flatten(2)
        residuals = _box_sums(sums, size).unflatten(1, (-1, channels))
        residuals -= masses[:, part, None] * aggregation.centres[part]
        norms = torch.linalg.vector_norm(residuals, dim=2, keepdim=True)
        scales = norms.clamp(min=aggregation.floor)
        residuals /= scales
        squares += (norms / scales).square().sum(1)
        columns = slice(start * channels, start * channels + residuals[0].numel())
        if weight is None:
            rows[:, columns] = residuals.flatten(1)
        else:
            rows.addmm_(residuals.flatten(1), weight[:, columns].T)
    rows /= squares.sqrt().clamp(min=1e-12)
    if weight is None:
        return rows
    return functional.normalize(rows if bias is None else rows + bias, dim=1)


def _box_sums(grid: Tensor, size: int) -> Tensor:
    """(H, W, C) -> (P, C): sums over size x size windows."""
    height, width, channels = grid.shape
    rows, columns = _band(height, size, grid), _band(width, size, grid)
    down = (rows @ grid.reshape(height, -1)).view(-1, width, channels)
    return torch.bmm(columns.expand(len(down), -1, -1), down).flatten(0, 1)


def _band(length: int, size: int, like: Tensor) -> Tensor:
    """(length - size + 1, length) of ones where an output takes an input."""
    ones = torch.ones(length - size + 1, length, dtype=like.dtype, device=like.device)
    return ones.tril(size - 1).triu()
