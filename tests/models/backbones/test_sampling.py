"""Matrices that resample, against what torch's interpolation computes by itself."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from vladmap.models.backbones.sampling import antialiased, bicubic, resampled, unchanged
from vladmap.models.backbones.view import Resampling


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("before", "after"), [((40, 31), (17, 31)), ((9, 5), (21, 12)), ((64, 33), (7, 90))]
)
def test_antialiased_weights_are_those_of_torchs_interpolation(
    mode: str, before: tuple[int, int], after: tuple[int, int]
) -> None:
    maps = torch.rand(2, 3, *before, generator=torch.Generator().manual_seed(1)).double()
    expected = functional.interpolate(maps, after, mode=mode, antialias=True)
    rows, columns = (
        antialiased(length, size, mode).double() for length, size in zip(before, after, strict=True)
    )
    assert (resampled(maps, rows, columns) - expected).abs().max() < 1e-6


@pytest.mark.parametrize(("side", "size"), [(37, 23), (5, 9), (16, 17)])
def test_bicubic_weights_are_those_of_torchs_interpolation_by_a_scale(side: int, size: int) -> None:
    """The scale is not the ratio of the sizes: as DINOv2 resamples its positions."""
    scale = (size + 0.1) / side
    maps = torch.rand(1, 4, side, side, generator=torch.Generator().manual_seed(2)).double()
    expected = functional.interpolate(maps, scale_factor=(scale, scale), mode="bicubic")
    matrix = bicubic(side, size, torch.tensor(scale, dtype=torch.float64)).double()
    assert expected.shape[2:] == (size, size)
    assert (resampled(maps, matrix, matrix) - expected).abs().max() < 1e-6


def test_cells_that_stay_are_not_changed() -> None:
    assert torch.equal(unchanged(5, 5), torch.eye(5))
    for mode in ("bilinear", "bicubic"):
        assert torch.equal(antialiased(6, 6, mode), torch.eye(6))


@pytest.mark.parametrize("rule", [Resampling("bilinear", multiple=14), Resampling("bicubic", 384)])
def test_a_side_without_a_branch_is_the_side_that_is_aimed_at(rule: Resampling) -> None:
    for length in range(8, 700):
        assert rule.unbranched(length) == rule.target(length, length)[0], length
