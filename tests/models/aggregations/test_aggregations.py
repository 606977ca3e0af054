"""SuperVLAD, GeM and Patch-NetVLAD against their definitions, written out as loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vladmap.models.aggregations import patches
from vladmap.models.aggregations.gem import GeM
from vladmap.models.aggregations.netvlad import NetVLAD, initial_alpha
from vladmap.models.aggregations.patches import patch_centres, patch_descriptors
from vladmap.models.aggregations.supervlad import SuperVLAD

Float64s = NDArray[np.float64]


def unit(x: Float64s) -> Float64s:
    return x / math.sqrt(sum(v * v for v in x))


def softmax(scores: list[float]) -> list[float]:
    exponentials = [math.exp(score - max(scores)) for score in scores]
    return [e / sum(exponentials) for e in exponentials]


@pytest.mark.parametrize("ghosts", [1, 2])
def test_supervlad_is_its_definition_in_loops(ghosts: int) -> None:
    generator = np.random.default_rng(4)
    maps, assignment = generator.normal(size=(2, 8, 3, 4)), 4 * generator.normal(size=(5, 8))
    expected = []
    for one in maps:
        sums = np.zeros((5 - ghosts, 8))
        for y in range(3):
            for x in range(4):
                local = unit(one[:, y, x])
                shares = softmax([float(row @ local) for row in assignment])
                for k in range(5 - ghosts):
                    sums[k] += shares[k] * local
        expected.append(unit(np.concatenate([unit(row) for row in sums])))
    layer = SuperVLAD(torch.from_numpy(assignment), ghosts)
    found = layer(torch.from_numpy(maps).float()).numpy()
    assert layer.dimension == found.shape[1] == (5 - ghosts) * 8
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("ghosts", [-1, 5])
def test_ghosts_leave_a_cluster(ghosts: int) -> None:
    with pytest.raises(ValueError, match="leave none"):
        SuperVLAD(torch.ones(5, 3), ghosts)


@pytest.mark.parametrize("normalise_locals", [False, True])
def test_gem_is_its_definition_in_loops(normalise_locals: bool) -> None:
    one = np.random.default_rng(5).normal(size=(6, 3, 4))
    expected = np.zeros(6)
    for c in range(6):
        for y in range(3):
            for x in range(4):
                value = unit(one[:, y, x])[c] if normalise_locals else one[c, y, x]
                expected[c] += max(value, 1e-6) ** 2.5 / 12
        expected[c] = expected[c] ** (1 / 2.5)
    if not normalise_locals:
        expected = unit(expected)
    layer = GeM(6, 2.5, normalise_locals)
    found = layer(torch.from_numpy(one).float()[None])[0].numpy()
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def patches_by_loops(one: Float64s, layer: NetVLAD, size: int) -> Float64s:
    """(P, K * D): each patch's NetVLAD by direct summation over its cells."""
    centres, assignment, bias = (
        getattr(layer, name).double().numpy() for name in ("centres", "assignment", "bias")
    )
    rows = []
    for top in range(one.shape[1] - size + 1):
        for left in range(one.shape[2] - size + 1):
            sums = np.zeros_like(centres)
            for y in range(top, top + size):
                for x in range(left, left + size):
                    local = unit(one[:, y, x])
                    logits = [
                        float(row @ local + b) for row, b in zip(assignment, bias, strict=True)
                    ]
                    shares = softmax(logits)
                    for k in range(len(centres)):
                        sums[k] += shares[k] * (local - centres[k]) / size**2
            lengths = [max(math.sqrt(row @ row), layer.floor / size**2) for row in sums]
            rows.append(unit(np.concatenate([s / n for s, n in zip(sums, lengths, strict=True)])))
    return np.array(rows)


@pytest.mark.parametrize("floor", [1e-12, 0.5])
@pytest.mark.parametrize("whitened", [False, True])
def test_patch_descriptors_are_their_definition_by_direct_summation(
    floor: float, whitened: bool
) -> None:
    generator = np.random.default_rng(6)
    maps = generator.normal(size=(2, 7, 6, 8))
    layer = NetVLAD.v2(torch.from_numpy(0.3 * generator.normal(size=(3, 7))), 5.0, floor)
    weight, bias = generator.normal(size=(4, 21)), generator.normal(size=4)
    found = patch_descriptors(
        layer,
        torch.from_numpy(maps).float(),
        (2, 5),
        *((torch.from_numpy(a).float() for a in (weight, bias)) if whitened else ()),
    )
    for rows, size in zip(found, (2, 5), strict=True):
        expected = np.stack([patches_by_loops(one, layer, size) for one in maps])
        if whitened:
            expected = expected @ weight.T + bias
            expected /= np.linalg.norm(expected, axis=2, keepdims=True)
        assert rows.shape == expected.shape
        assert np.abs(rows.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("floor", [1e-12, 1.0])
@pytest.mark.parametrize("at_once", [1, 1 << 10, 1 << 30])
def test_patches_of_a_batch_are_their_definition_however_many_are_taken_at_once(
    floor: float, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU computes; without a floor clusters far fainter than float16's least count, too."""
    monkeypatch.setitem(patches._AT_ONCE, "cpu", at_once)
    generator = np.random.default_rng(9)
    maps = generator.normal(size=(3, 7, 6, 8))
    layer = NetVLAD.v2(torch.from_numpy(0.5 * generator.normal(size=(5, 7))), 40.0, floor)
    weight, bias = generator.normal(size=(4, 35)), 0.1 * generator.normal(size=4)
    local, shares = (
        each.unflatten(2, (6, 8)) for each in layer.assign(torch.from_numpy(maps).float())
    )
    assert float(shares.amax((2, 3)).min()) < 1e-3
    exact = torch.from_numpy(weight).float(), torch.from_numpy(bias).float()
    for size in (2, 5):
        expected = np.stack([patches_by_loops(one, layer, size) for one in maps])
        expected = expected @ weight.T + bias
        expected /= np.linalg.norm(expected, axis=2, keepdims=True)
        found = patches.by_windows(layer, local, shares, size, *exact)
        assert found.shape == expected.shape
        assert np.abs(found.numpy() - expected).max() <= 2e-5
        half = patches.by_windows(layer, local, shares, size, exact[0].half(), exact[1])
        assert (half.numpy() * expected).sum(2).min() > 0.9995


def test_patches_projected_a_cell_at_a_time_are_their_definition_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = np.random.default_rng(8)
    maps = generator.normal(size=(1, 7, 6, 8))
    # All but hard assignment to many clusters: each cell belongs to few of them.
    layer = NetVLAD.v2(torch.from_numpy(0.5 * generator.normal(size=(40, 7))), 100.0, 1.0)
    weight, bias = generator.normal(size=(4, 280)), generator.normal(size=4)
    monkeypatch.setattr(patches, "by_windows", None)  # the other way is not there to be taken
    found = patch_descriptors(
        layer,
        torch.from_numpy(maps).float(),
        (2, 5),
        torch.from_numpy(weight).float(),
        torch.from_numpy(bias).float(),
    )
    for rows, size in zip(found, (2, 5), strict=True):
        expected = patches_by_loops(maps[0], layer, size) @ weight.T + bias
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        assert np.abs(rows[0].numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_patch_of_the_whole_map_is_the_global_descriptor() -> None:
    maps = torch.randn(1, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    centres = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    layer = NetVLAD(centres, 3 * centres, None)
    (rows,) = patch_descriptors(layer, maps, (4,))
    assert torch.allclose(rows[0], layer(maps), atol=1e-6)


def test_published_patch_counts_and_the_centres_of_vgg16s_receptive_fields() -> None:
    counts = [len(patch_centres(30, 40, size, 16)) for size in (2, 5, 8)]
    assert counts == [1131, 936, 759]
    # A cell of conv5_3 sees 196 pixels, the first from -90 on: its centre is pixel 7.5.
    assert patch_centres(30, 40, 1, 16)[:3].tolist() == [[7.5, 7.5], [23.5, 7.5], [39.5, 7.5]]
    assert patch_centres(30, 40, 5, 16)[36].tolist() == [39.5, 55.5]


def test_a_patch_larger_than_the_map_is_refused() -> None:
    with pytest.raises(ValueError, match="patches of 5 cells do not fit"):
        patch_descriptors(NetVLAD.v2(torch.ones(2, 3), 1.0), torch.ones(1, 3, 4, 9), (2, 5))


def test_alpha_comes_from_the_gap_between_the_two_best_similarities() -> None:
    # By hand: cosines 1 and 0.6 to the centres (1, 0) and (0.6, 0.8), and 0.8 and 0.96.
    descriptors = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    centres = torch.tensor([[2.0, 0.0], [0.3, 0.4]])
    expected = -math.log(0.01) / ((0.4 + 0.16) / 2)
    assert initial_alpha(descriptors, centres) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="two centres"):
        initial_alpha(descriptors, centres[:1])
