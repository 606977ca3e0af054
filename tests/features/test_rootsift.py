"""RootSIFT, its blobs and its octaves."""

from __future__ import annotations

import numpy as np
import pytest

from tests.features.contracts import FeatureKindContract, MatcherContract
from vladmap.features.rootsift import RootSift


class TestSift(FeatureKindContract):
    kind = "sift"
    norm = 512.0


class TestNearestSift(MatcherContract):
    features, matcher = "sift", "nearest"


def blob(height: int, width: int, x: float, y: float, sigma: float) -> np.ndarray:
    """A bright Gaussian centred on the pixel coordinates (x, y), origin at the corner."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    grey = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


def test_a_blob_is_found_where_it_is_by_the_corner_origin() -> None:
    keypoints = RootSift().extract(blob(120, 160, 70.5, 40.5, 4.0)).keypoints
    nearest = np.linalg.norm(keypoints[:, :2] - [70.5, 40.5], axis=1).min()
    assert nearest < 0.1


def test_keypoints_of_a_shrunk_image_are_in_full_size_pixels() -> None:
    keypoints = RootSift(max_image_size=400).extract(blob(600, 800, 350.0, 200.0, 20.0)).keypoints
    nearest = np.argmin(np.linalg.norm(keypoints[:, :2] - [350.0, 200.0], axis=1))
    assert np.linalg.norm(keypoints[nearest, :2] - [350.0, 200.0]) < 1.0
    assert keypoints[nearest, 2] == pytest.approx(20.0, rel=0.3)
