"""Scan conversion against the definition, and against a second way of finding what is seen."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from vladmap.simulation.raster import edge_functions, rasterise, resample


def random_quads(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Parallelograms in front of, around and behind a camera; homogeneous corners and planes."""
    rng = np.random.default_rng(seed)
    origin = rng.normal((0, 0, 4), 3, (count, 3))
    u, v = rng.normal(0, 2, (count, 3)), rng.normal(0, 2, (count, 3))
    normal = np.cross(u, v)
    away = (normal * origin).sum(1) > 0
    u[away], v[away] = v[away], u[away]
    normal = np.cross(u, v)
    corners = np.stack([origin, origin + u, origin + u + v, origin + v], 1)
    intrinsics = np.array([[40.0, 0, 32], [0, 40, 24], [0, 0, 1]])
    plane = normal @ np.linalg.inv(intrinsics) / (normal * origin).sum(1)[:, None]
    return torch.from_numpy(corners @ intrinsics.T), torch.from_numpy(plane)


def test_every_pixel_shows_the_nearest_quad_that_covers_its_centre() -> None:
    corners, nearness = random_quads(60, seed=1)
    seen = rasterise(corners, nearness, 64, 48)
    y, x = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], -1).double()
    inside = (torch.einsum("qek,ijk->qeij", edge_functions(corners), points) >= 0).all(1)
    near = torch.einsum("qk,ijk->qij", nearness, points).masked_fill(~inside, -1.0)
    expected = torch.where(inside.any(0), near.argmax(0), -1)
    assert torch.equal(seen, expected)
    assert 0.1 < (seen >= 0).double().mean() < 1.0


def test_quads_that_share_an_edge_leave_no_gap_and_do_not_overlap() -> None:
    x = np.linspace(3.3, 60.7, 9)
    top, bottom = 5.1, 40.9
    corners = [[[a, bottom, 1], [b, bottom, 1], [b, top, 1], [a, top, 1]] for a, b in pairwise(x)]
    nearness = torch.tensor([[0.0, 0.0, 1.0]]).double().repeat(8, 1)
    seen = rasterise(torch.tensor(corners).double(), nearness, 64, 48)
    covered = seen[5:41, 3:61]
    assert (covered >= 0).all()
    assert (covered.diff(dim=1) >= 0).all()
    assert int((seen >= 0).sum()) == covered.numel()


def test_further_samples_are_found_along_an_edge_only() -> None:
    # A quad that ends at x = 10.2: of the samples of column 10 those left of 10.2 see it.
    corners = torch.tensor([[[0, 48, 1], [10.2, 48, 1], [10.2, 0, 1], [0, 0, 1]]]).double()
    nearness = torch.tensor([[0.0, 0.0, 1.0]]).double()
    seen = rasterise(corners, nearness, 64, 48)
    pixel, sample, quad = resample(seen, corners, nearness, ((-0.4, 0.0), (0.4, 0.0)))
    assert (seen[:, 10] == -1).all()
    assert (pixel % 64 == 10).all()
    assert len(pixel) == 48
    assert (sample == 0).all()
    assert (quad == 0).all()
