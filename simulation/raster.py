"""Visibility: exact scan conversion of planar quads, all in one vectorised pass."""

from __future__ import annotations

import torch
from torch import Tensor


def edge_functions(corners: Tensor) -> Tensor:
    """(Q, 4, 3): a quad covers image point p = (x, y, 1) where all four edges . p are >= 0.

    corners: (Q, 4, 3) homogeneous image points, anticlockwise as seen from the front: camera
    coordinates times the intrinsics for a perspective view, where corners may lie behind the
    camera; (x, y, 1) for a parallel one. Linear in homogeneous image coordinates, so that nothing
    is clipped (Olano & Greer, "Triangle scan conversion using 2D homogeneous coordinates", 1997).
    """
    return torch.linalg.cross(corners.roll(-1, 1), corners, dim=-1)


def rasterise(corners: Tensor, nearness: Tensor, width: int, height: int) -> Tensor:
    """(height, width) int64: the nearest quad at every pixel's centre, or -1.

    corners: (Q, 4, 3) float64 as for `edge_functions`. nearness: (Q, 3) float64: at image point
    (x, y) a quad's nearness, positive and larger the nearer, is nearness . (x, y, 1). The quads
    need not be sorted and may overlap.

    On a row of pixels the four edges bound an interval. The intervals of all quads and rows are
    laid out flat and reduced into the image by the largest nearness.
    """
    edges = edge_functions(corners)
    quad, row = _rows(corners, height)
    y = row + 0.5
    slope = edges[quad, :, 0]
    rest = edges[quad, :, 1] * y[:, None] + edges[quad, :, 2]
    crossing = -rest / slope
    low = crossing.masked_fill(slope <= 0, -torch.inf).amax(1)
    high = crossing.masked_fill(slope >= 0, torch.inf).amin(1)
    outside = ((slope == 0) & (rest < 0)).any(1)
    first = (low - 0.5).ceil().clamp(0, width).long()
    last = (high - 0.5).floor().clamp(-1, width - 1).long()
    length = (last - first + 1).masked_fill(outside, 0).clamp(min=0)

    filled = length.nonzero()[:, 0]
    quad, row, first, length = quad[filled], row[filled], first[filled], length[filled]
    step, plane_y, plane_1 = nearness[quad].unbind(1)
    start = step * (first + 0.5) + plane_y * (row + 0.5) + plane_1
    total = int(length.sum())
    span = torch.repeat_interleave(length, output_size=total)
    within = torch.arange(total, device=length.device)
    within -= (length.cumsum(0) - length)[span]
    near = torch.addcmul(start.float()[span], step.float()[span], within).clamp_(min=1e-9)
    # The bits of positive floats sort as integers: nearness above, the quad below it.
    key = near.view(torch.int32).long().bitwise_left_shift_(32).bitwise_or_(quad[span])
    within += (row * width + first)[span]
    image = torch.full((height * width,), -1, device=corners.device)
    image.scatter_reduce_(0, within, key, "amax")
    return torch.where(image >= 0, image & 0xFFFFFFFF, image).view(height, width)


def _rows(corners: Tensor, height: int) -> tuple[Tensor, Tensor]:
    """Every row of pixels that a quad may touch, flat: the quad and the row."""
    depth = corners[..., 2]
    y = corners[..., 1] / depth.clamp(min=1e-6)
    bounded = (depth > 1e-6).all(1)
    low = torch.where(bounded, y.amin(1) - 0.5, 0.0).clamp(0, height).floor().long()
    high = torch.where(bounded, y.amax(1) + 0.5, float(height)).clamp(0, height).ceil().long()
    count = (high - low).clamp(min=0)
    quad = torch.repeat_interleave(count)
    within = torch.arange(len(quad), device=count.device) - (count.cumsum(0) - count)[quad]
    return quad, low[quad] + within


def resample(
    seen: Tensor, corners: Tensor, nearness: Tensor, offsets: tuple[tuple[float, float], ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """What further samples of a pixel see, where that is another quad than at its centre.

    seen: (H, W) from `rasterise` of the same quads. offsets: S samples relative to a pixel's
    centre. Returns the pixel (flat), the sample's number and the quad, or -1, of every such case.
    The candidates are the quads at the centres of the pixel and its four neighbours: what lies
    between two centres and is seen at neither is left out.
    """
    height, width = seen.shape
    padded = torch.nn.functional.pad(seen[None].float(), (1, 1, 1, 1), "replicate")[0].long()
    around = torch.stack(
        [
            padded[1 + down : 1 + down + height, 1 + right : 1 + right + width].flatten()
            for right, down in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
        ]
    )
    pixel = (around[1:] != around[0]).any(0).nonzero()[:, 0]
    candidate = around[:, pixel]
    edges = edge_functions(corners).float()
    edges = edges / edges.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    planes = torch.cat([edges, nearness.float()[:, None]], 1).flatten(1).T.contiguous()
    maps = planes[:, candidate.clamp(min=0)].unflatten(0, (5, 3))
    x, y = (pixel % width).float() + 0.5, (pixel // width).float() + 0.5
    centre = maps[:, 0] * x + maps[:, 1] * y + maps[:, 2]
    sky = candidate < 0
    parts = []
    for number, (right, down) in enumerate(offsets):
        values = centre + maps[:, 0] * right + maps[:, 1] * down
        near = values[4].masked_fill((values[:4] < 0).any(0), -1.0).masked_fill(sky, 0.0)
        best = near.argmax(0, keepdim=True)
        quad = candidate.gather(0, best)[0]
        differs = ((near.gather(0, best)[0] >= 0) & (quad != candidate[0])).nonzero()[:, 0]
        parts.append((pixel[differs], torch.full_like(differs, number), quad[differs]))
    pixels, numbers, quads = zip(*parts, strict=True)
    return torch.cat(pixels), torch.cat(numbers), torch.cat(quads)
