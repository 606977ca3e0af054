from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vladmap.models.aggregations.netvlad import NetVLAD

Float64s = NDArray[np.float64]


def _by_loops(
    features: Float64s, assignment: Float64s, bias: Float64s, centres: Float64s
) -> Float64s:
    """NetVLAD of one (D, H, W) map, written out as its definition."""
    clusters, dimension = centres.shape
    residuals = np.zeros((clusters, dimension))
    for y in range(features.shape[1]):
        for x in range(features.shape[2]):
            local = features[:, y, x] / math.sqrt(sum(v * v for v in features[:, y, x]))
            scores = [float(assignment[k] @ local + bias[k]) for k in range(clusters)]
            exponentials = [math.exp(score - max(scores)) for score in scores]
            for k in range(clusters):
                share = exponentials[k] / sum(exponentials)
                residuals[k] += share * (local - centres[k])
    for k in range(clusters):
        residuals[k] /= np.linalg.norm(residuals[k])
    flat = residuals.ravel()
    return flat / np.linalg.norm(flat)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("alpha", [1.0, 30.0])
def test_netvlad_is_its_definition_in_loops(version: str, alpha: float) -> None:
    generator = np.random.default_rng(3)
    maps = generator.normal(size=(2, 12, 4, 5))
    centres = generator.normal(size=(6, 12)) * 0.2
    if version == "v1":
        assignment = alpha * centres / np.linalg.norm(centres, axis=1, keepdims=True)
        layer = NetVLAD(torch.from_numpy(centres), torch.from_numpy(assignment), None)
        bias = np.zeros(6)
    else:
        layer = NetVLAD.v2(torch.from_numpy(centres), alpha)
        assignment, bias = 2 * alpha * centres, -alpha * (centres**2).sum(axis=1)
    found = layer(torch.from_numpy(maps).float()).numpy()
    expected = np.stack([_by_loops(one, assignment, bias, centres) for one in maps])
    assert found.shape == (2, 72)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_large_alpha_assigns_as_vlad_does() -> None:
    # By hand: two unit vectors, each on its own centre but for a residual of one direction.
    centres = torch.tensor([[0.6, 0.0], [0.0, 0.5]])
    features = torch.tensor([[[2.0, 0.0]], [[0.0, 3.0]]])[None]  # (1, 2, 1, 2): (1, 0) and (0, 1)
    found = NetVLAD.v2(centres, 1e4)(features)[0]
    half = math.sqrt(0.5)
    assert found.tolist() == pytest.approx([half, 0, 0, half], abs=1e-6)


def test_a_cluster_of_next_to_nothing_counts_by_what_it_holds_above_the_floor() -> None:
    centres = torch.tensor([[0.6, 0.0], [0.0, 0.5]])
    features = torch.tensor([[[1.0]], [[0.0]]])[None]  # one location, all but wholly of cluster 0
    published = NetVLAD.v2(centres, 10.0)(features)[0]
    floored = NetVLAD.v2(centres, 10.0, floor=0.1)(features)[0]
    assert published[2:].norm() == pytest.approx(math.sqrt(0.5), abs=1e-5)
    assert floored[2:].norm() < 1e-3
