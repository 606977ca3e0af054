"""Patch-NetVLAD: NetVLAD of every square patch of the feature map, from the same forward pass.

Hausler et al., "Patch-NetVLAD: Multi-Scale Fusion of Locally-Global Descriptors for Place
Recognition" (CVPR 2021).

As published, a patch's sum of residuals comes from an integral image. Here sums over two cells are
added to sums over four, and so on. The sums are the same, but more accurate: differences of an
integral image's large float32 numbers lose digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from vladmap.models.aggregations.netvlad import NetVLAD

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
    by_size = [
        [
            _of_image(aggregation, x.view(-1, height, width), a, size, weight, bias)
            for x, a in zip(local, shares, strict=True)
        ]
        for size in sizes
    ]
    return [torch.stack(rows) for rows in by_size]


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
    """(D, H, W) unit local descriptors and their shares (K, L) -> (P, d)."""
    significant = None if weight is None else _significant_shares(aggregation, shares, size, weight)
    if weight is None or significant is None:
        rows, squares = _summed_first(aggregation, local, shares, size, weight)
    else:
        rows, squares = _projected_first(aggregation, local, shares, size, weight, significant)
    rows /= squares.sqrt().clamp(min=1e-12)
    if weight is None:
        return rows
    return functional.normalize(rows if bias is None else rows + bias, dim=1)


def _summed_first(
    aggregation: NetVLAD, local: Tensor, shares: Tensor, size: int, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Patches (P, d) by summing residuals, intra-normalising and then projecting, and the squared
    lengths (P, 1) before the projection.

    Clusters are computed some at a time: all residuals together are K times as large as the map,
    and parts that fit into the caches are twice as fast.
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
    for start in range(0, clusters, step):
        part = slice(start, start + step)
        sums = _box_sums((shares[:, :, part, None] * local).flatten(2), size)
        residuals = sums.unflatten(1, (-1, channels))
        residuals.addcmul_(masses[:, part, None], aggregation.centres[part], value=-1)
        norms = torch.linalg.vector_norm(residuals, dim=2, keepdim=True)
        scales = norms.clamp(min=aggregation.floor)
        residuals /= scales
        squares += (norms / scales).square().sum(1)
        columns = slice(start * channels, start * channels + residuals[0].numel())
        if weight is None:
            rows[:, columns] = residuals.flatten(1)
        else:
            rows += _product(residuals.flatten(1), weight[:, columns].T)
    return rows, squares


def _projected_first(
    aggregation: NetVLAD,
    local: Tensor,
    shares: Tensor,
    size: int,
    weight: Tensor,
    significant: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """`_summed_first` in the other order, for the pairs (cell, cluster) that are `significant`.

    Between the two steps a cluster's sum is only scaled, and the projection is linear, so that each
    cell's residual is projected once instead of once for each patch that covers it.
    """
    channels, height, width = local.shape
    down, across = height - size + 1, width - size + 1
    cells, clusters = significant  # by cell
    residuals = local.flatten(1).T.index_select(0, cells)
    residuals -= aggregation.centres.index_select(0, clusters)
    residuals *= shares[clusters, cells][:, None]
    covers = _covers(height, size)[:, None, :, None] * _covers(width, size)[None, :, None]
    covers = covers.flatten(2).flatten(0, 1)  # (H * W, P)

    order = torch.argsort(clusters, stable=True)
    counts = torch.bincount(clusters, minlength=len(aggregation.centres)).tolist()
    by_cluster = residuals.index_select(0, order).split(counts)
    covering = covers.index_select(0, cells.index_select(0, order)).split(counts)
    products = []
    norms = torch.zeros(len(counts), down * across)
    for cluster, (own, covered) in enumerate(zip(by_cluster, covering, strict=True)):
        columns = slice(cluster * channels, (cluster + 1) * channels)
        products.append(_product(own, weight[:, columns].T))
        norms[cluster] = torch.linalg.vector_norm(covered.T @ own, dim=1)
    projected = torch.cat(products).index_select(0, torch.argsort(order))
    scales = norms.clamp(min=aggregation.floor)
    squares = (norms / scales).square().sum(0)[:, None]

    # A row of patches covers `size` rows of cells, whose pairs are consecutive.
    shared = covers.view(-1, down, across), scales.reciprocal().view(-1, down, across)
    ends = torch.searchsorted(cells, width * torch.arange(height + 1)).tolist()
    rows = torch.empty(down, across, len(weight))
    for row in range(down):
        part = slice(ends[row], ends[row + size])
        weights = shared[0][:, row].index_select(0, cells[part])
        weights *= shared[1][:, row].index_select(0, clusters[part])
        torch.matmul(weights.T, projected[part], out=rows[row])
    return rows.flatten(0, 1), squares


def _covers(length: int, size: int) -> Tensor:
    """(length, length - size + 1): 1 where a window of `size` cells holds the cell, else 0."""
    offsets = torch.arange(length)[:, None] - torch.arange(length - size + 1)
    return ((offsets >= 0) & (offsets < size)).float()


def _significant_shares(
    aggregation: NetVLAD, shares: Tensor, size: int, weight: Tensor
) -> tuple[Tensor, Tensor] | None:
    """(cells, ascending; clusters) of the significant shares (K, L); None where all are used.

    Where intra-normalisation has a floor, shares far below it can be neglected: a residual is at
    most twice as long as its share, and a patch sums `size` squared of them. Measured, the numbers
    of a descriptor change by at most 2e-7. All are used where there is no floor, as in published
    models, and on a GPU, where index lists are slow.
    """
    if aggregation.floor < 0.1 or shares.device.type != "cpu":
        return None
    faint = 1e-5 if weight.dtype == torch.float32 else 1e-3
    cells, clusters = (2 * size**2 * shares.T > faint * aggregation.floor).nonzero(as_tuple=True)
    return None if 8 * len(cells) > shares.numel() else (cells, clusters)


def _product(rows: Tensor, weight: Tensor) -> Tensor:
    """`rows` @ `weight`, computed at the precision of `weight`, as float32."""
    return (rows.to(weight.dtype) @ weight).float()


def _box_sums(grid: Tensor, size: int) -> Tensor:
    """(H, W, C) -> (P, C): sums over size x size windows."""
    return _window_sums(_window_sums(grid, size, 0), size, 1).flatten(0, 1)


def _window_sums(grid: Tensor, size: int, axis: int) -> Tensor:
    """Sums over `size` neighbours along an axis, composed of sums over powers of two."""
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
