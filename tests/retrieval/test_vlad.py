from __future__ import annotations

import math

import numpy as np
import pytest

from vladmap.retrieval.vlad import vlad


def _by_loops(
    descriptors: np.ndarray, centres: np.ndarray, *, signed_square_root: bool
) -> np.ndarray:
    residuals = np.zeros(centres.shape)
    for descriptor in descriptors.astype(np.float64):
        distances = [sum((descriptor - centre) ** 2) for centre in centres]
        nearest = distances.index(min(distances))
        residuals[nearest] += descriptor - centres[nearest]
    if signed_square_root:
        for k in range(len(centres)):
            for d in range(centres.shape[1]):
                residuals[k, d] = math.copysign(math.sqrt(abs(residuals[k, d])), residuals[k, d])
    for k in range(len(centres)):
        norm = math.sqrt(sum(residuals[k] ** 2))
        if norm > 0:
            residuals[k] /= norm
    flat = residuals.ravel()
    return flat / np.linalg.norm(flat)


@pytest.mark.parametrize("signed_square_root", [False, True])
def test_vlad_is_its_definition_in_loops(signed_square_root: bool) -> None:
    generator = np.random.default_rng(0)
    descriptors = generator.normal(size=(60, 8)).astype(np.float32)
    centres = generator.normal(size=(5, 8)).astype(np.float32)
    vector = vlad(descriptors, centres, signed_square_root=signed_square_root)
    expected = _by_loops(
        descriptors, centres.astype(np.float64), signed_square_root=signed_square_root
    )
    assert vector.dtype == np.float32
    assert np.abs(vector - expected).max() < 1e-5 * np.abs(expected).max()


def test_a_cluster_without_members_is_zero_and_the_others_share_the_norm() -> None:
    # By hand: residuals (1, 0) of cluster 0 and (0, -2) of cluster 1, nothing at cluster 2.
    centres = np.array([[0, 0], [10, 0], [0, 50]], np.float32)
    descriptors = np.array([[1, 0], [10, -2]], np.float32)
    half = math.sqrt(0.5)
    assert vlad(descriptors, centres) == pytest.approx([half, 0, 0, -half, 0, 0])


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_sum_up_is_the_zero_vector(count: int) -> None:
    centres = np.array([[1, 0], [0, 1]], np.float32)
    assert not vlad(centres[:count], centres).any()
