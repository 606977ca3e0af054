"""Patch-NetVLAD: NetVLAD of every square patch of the feature map, from the same forward pass.

Hausler et al., "Patch-NetVLAD: Multi-Scale Fusion of Locally-Global Descriptors for Place
Recognition" (CVPR 2021).

As published, a patch's sum of residuals comes from an integral image. Here sums over two cells make
those over four, and so on: the same sums, without the digits that differences of an integral
image's large float32 numbers lose.
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
    length = clusters * channels if weight is None else len(weight)
    rows = torch.zeros(len(masses), length, device=local.device)
    held = _held(aggregation, masses, weight)
    for start in range(0, clusters, step):
        part = slice(start, start + step)
        sums = _box_sums((shares[:, :, part, None] * local).flatten(2), size)
        residuals = sums.unflatten(1, (-1, channels))
        if weight is None or held is None:
            residuals.addcmul_(masses[:, part, None], aggregation.centres[part], value=-1)
            _intra_normalise(residuals, squares, aggregation.floor)
            columns = slice(start * channels, start * channels + residuals[0].numel())
            if weight is None:
                rows[:, columns] = residuals.flatten(1)
            else:
                rows += _product(residuals.flatten(1), weight[:, columns].T)
            continue
        for place, cluster in enumerate(range(*part.indices(clusters))):
            patches = held[cluster]
            few = residuals[:, place].index_select(0, patches)
            mass = masses[:, cluster, None].index_select(0, patches)
            few.addcmul_(mass, aggregation.centres[cluster], value=-1)
            square = torch.zeros(len(few), 1)
            _intra_normalise(few[:, None], square, aggregation.floor)
            squares.index_add_(0, patches, square)
            columns = slice(cluster * channels, (cluster + 1) * channels)
            rows.index_add_(0, patches, _product(few, weight[:, columns].T))
    rows /= squares.sqrt().clamp(min=1e-12)
    if weight is None:
        return rows
    return functional.normalize(rows if bias is None else rows + bias, dim=1)


def _intra_normalise(residuals: Tensor, squares: Tensor, floor: float) -> None:
    """Divides (n, k, D) by its lengths, or `floor`; adds what is left of them to `squares`."""
    norms = torch.linalg.vector_norm(residuals, dim=2, keepdim=True)
    scales = norms.clamp(min=floor)
    residuals /= scales
    squares += (norms / scales).square().sum(1)


def _held(aggregation: NetVLAD, masses: Tensor, weight: Tensor | None) -> tuple[Tensor, ...] | None:
    """For each cluster the patches that hold some of it; None where all are to be taken.

    A residual is at most twice its mass long. Where intra-normalisation has a floor, one that is
    far below it is lost in the rounding of the others, and the projection, by far the most work,
    can do without two thirds of them. Published models have no floor, and a GPU no time for lists.
    """
    if weight is None or aggregation.floor < 0.1 or masses.device.type != "cpu":
        return None
    faint = 1e-6 if weight.dtype == torch.float32 else 1e-4
    held = (2 * masses > faint * aggregation.floor).T
    return held.nonzero()[:, 1].split(held.sum(1).tolist())


def _product(rows: Tensor, weight: Tensor) -> Tensor:
    """At the precision of `weight`; float32."""
    return (rows.to(weight.dtype) @ weight).float()


def _box_sums(grid: Tensor, size: int) -> Tensor:
    """(H, W, C) -> (P, C): sums over size x size windows."""
    return _window_sums(_window_sums(grid, size, 0), size, 1).flatten(0, 1)


def _window_sums(grid: Tensor, size: int, axis: int) -> Tensor:
    """Sums over `size` neighbours along an axis, put together from sums over powers of two."""
    length = grid.shape[axis] - size + 1
    total: Tensor | None = None
    start, width = 0, 1
    while True:
        if size & width:
            part = grid.narrow(axis, start, length)
            total = part if total is None else total + part
            start += width
        if start == size:
            assert total is not None
            return total
        left = grid.shape[axis] - width
        grid = grid.narrow(axis, 0, left) + grid.narrow(axis, width, left)
        width *= 2
