"""Patch-NetVLAD: NetVLAD of every square patch of the feature map, from the same forward pass.

Hausler et al., "Patch-NetVLAD: Multi-Scale Fusion of Locally-Global Descriptors for Place
Recognition" (CVPR 2021).

As published, a patch's sum of residuals comes from an integral image. Here it is a matrix product
of its own, of the window's shares and descriptors, those of many patches in one call: the same
sums, without the digits that differences of an integral image's large float32 numbers lose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from vladmap.models.aggregations.netvlad import NetVLAD

# Numbers in the residuals of patches in memory together: on a CPU they stay in its caches.
_AT_ONCE = {"cpu": 1 << 21, "cuda": 1 << 28}


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
    local, shares = (each.unflatten(2, (height, width)) for each in aggregation.assign(features))
    if features.device.type != "cpu":
        return [by_windows(aggregation, local, shares, size, weight, bias) for size in sizes]
    # One at a time, as the caches want it, and so that sums do not depend on neighbours.
    images = list(zip(local.split(1), shares.split(1), strict=True))
    return [
        torch.cat([_of_image(aggregation, *image, size, weight, bias) for image in images])
        for size in sizes
    ]


def patch_centres(height: int, width: int, size: int, stride: int) -> Tensor:
    """Centres (P, 2) as x, y in pixels of the patches of a map of `height` x `width` cells.

    A cell at `stride` stands for as many pixels; the first pixel's centre is at 0, 0.
    """
    shift = (stride * size - 1) / 2
    y = stride * torch.arange(height - size + 1) + shift
    x = stride * torch.arange(width - size + 1) + shift
    grid = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([grid[1].flatten(), grid[0].flatten()], dim=1).float()


def by_windows(
    aggregation: NetVLAD,
    local: Tensor,
    shares: Tensor,
    size: int,
    weight: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """(N, D, H, W) unit local descriptors and their shares (N, K, H, W) -> (N, P, d).

    A patch's sums are the product of its window's shares (K, size^2) and descriptors (size^2, D),
    at the precision of `weight`. Rows of patches are taken together as memory allows, each with the
    patches of all images.
    """
    dtype = torch.float32 if weight is None else weight.dtype
    count, channels, height, width = local.shape
    clusters, down = shares.shape[1], height - size + 1
    local = local.to(dtype)
    step = max(1, _AT_ONCE[local.device.type] // (count * (width - size + 1) * clusters * channels))
    found = []
    for start in range(0, down, step):
        rows = slice(start, min(start + step, down) + size - 1)
        ours = _windows(shares[:, :, rows], size).flatten(0, 2)  # (n, K, size^2)
        theirs = _windows(local[:, :, rows], size).flatten(0, 2)
        # Intra-normalisation makes a faint cluster count as much as any other, and float16 ends at
        # 6e-8: each cluster is measured by its largest share in the window.
        largest = ours.amax(2, keepdim=True).clamp(min=1e-30)
        ours = (ours / largest).to(dtype)
        residuals = torch.bmm(ours, theirs.transpose(1, 2)).float()
        residuals = residuals - ours.float().sum(2, keepdim=True) * aggregation.centres
        norms = torch.linalg.vector_norm(residuals, dim=2)
        scales = torch.maximum(norms, aggregation.floor / largest[:, :, 0])
        lengths = (norms / scales).square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)
        flat = (residuals / scales[:, :, None]).flatten(1)
        if weight is not None:
            flat = _product(flat, weight.T)
        flat = flat / lengths
        if weight is not None:
            flat = functional.normalize(flat if bias is None else flat + bias, dim=1)
        found.append(flat.unflatten(0, (count, -1)))
    return torch.cat(found, 1)


def _windows(grid: Tensor, size: int) -> Tensor:
    """(N, C, H, W) -> (N, H - size + 1, W - size + 1, C, size^2): all windows, copied out."""
    cut = grid.unfold(2, size, 1).unfold(3, size, 1)
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(4)


def _of_image(
    aggregation: NetVLAD,
    local: Tensor,
    shares: Tensor,
    size: int,
    weight: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """`by_windows` of one image on a CPU, faster where each cell belongs to few clusters."""
    significant = (
        None
        if weight is None
        else _significant_shares(aggregation, shares[0].flatten(1), size, weight)
    )
    if weight is None or significant is None:
        return by_windows(aggregation, local, shares, size, weight, bias)
    rows, squares = _projected_first(
        aggregation, local[0], shares[0].flatten(1), size, weight, significant
    )
    rows /= squares.sqrt().clamp(min=1e-12)
    return functional.normalize(rows if bias is None else rows + bias, dim=1)[None]


def _projected_first(
    aggregation: NetVLAD,
    local: Tensor,
    shares: Tensor,
    size: int,
    weight: Tensor,
    significant: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """`by_windows` in the other order, of the `significant` pairs of a cell and a cluster alone.

    (D, H, W) and (K, L) -> rows (P, d), divided by their length neither before projection nor
    after it, and the squares of the lengths before (P, 1). The projection is linear and a cluster's
    sum is only scaled between the two, so each cell's residual is projected once instead of with
    each of the patches that cover it.
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
    if aggregation.floor < 0.1:
        return None
    faint = 1e-5 if weight.dtype == torch.float32 else 1e-3
    cells, clusters = (2 * size**2 * shares.T > faint * aggregation.floor).nonzero(as_tuple=True)
    return None if 8 * len(cells) > shares.numel() else (cells, clusters)


def _product(rows: Tensor, weight: Tensor) -> Tensor:
    """At the precision of `weight`; float32."""
    return (rows.to(weight.dtype) @ weight).float()
