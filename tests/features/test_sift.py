"""SIFT by OpenCV, and by COLMAP of large photographs: one kind."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.features.contracts import FeatureKindContract, MatcherContract, rectangles, same
from vladmap.features.nearest import RatioTest
from vladmap.features.rootsift import DOUBLED_UP_TO_PX, RootSift
from vladmap.features.sift import Sift


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


@pytest.mark.parametrize("extractor", [Sift, RootSift])
def test_a_blob_is_found_where_it_is_by_the_corner_origin(extractor: type) -> None:
    keypoints = extractor().extract(blob(120, 160, 70.5, 40.5, 4.0)).keypoints
    nearest = np.linalg.norm(keypoints[:, :2] - [70.5, 40.5], axis=1).min()
    assert nearest < 0.1


@pytest.mark.parametrize("extractor", [Sift, RootSift])
def test_keypoints_of_a_shrunk_image_are_in_full_size_pixels(extractor: type) -> None:
    keypoints = extractor(max_image_size=400).extract(blob(600, 800, 350.0, 200.0, 20.0)).keypoints
    nearest = np.argmin(np.linalg.norm(keypoints[:, :2] - [350.0, 200.0], axis=1))
    assert np.linalg.norm(keypoints[nearest, :2] - [350.0, 200.0]) < 1.0
    assert keypoints[nearest, 2] == pytest.approx(20.0, rel=0.3)


def test_a_photograph_too_large_to_be_doubled_is_colmap_s() -> None:
    large = rectangles(60, DOUBLED_UP_TO_PX + 6)
    theirs = RootSift().extract(large)
    same(Sift().extract(large), theirs.rows(np.argsort(-theirs.keypoints[:, 2], kind="stable")))
    bounded = Sift(max_image_size=DOUBLED_UP_TO_PX).extract(large)
    assert bounded.size == (DOUBLED_UP_TO_PX + 6, 60)
    assert len(bounded) > 20


@pytest.mark.medium
def test_features_of_both_match_each_other() -> None:
    """A collection may have photographs of both sizes: the same window of one picture, once as it
    is and once as a part of a large one."""
    picture = np.asarray(
        Image.fromarray(rectangles(400, 1200)).resize((1200, 400), Image.Resampling.BICUBIC)
    )
    large, window = Sift().extract(picture), Sift().extract(picture[:, 300:900].copy())
    matches = RatioTest().match(large, window)
    ours = large.keypoints[matches[:, 0], :2] - [300.0, 0.0]
    theirs = window.keypoints[matches[:, 1], :2]
    right = np.linalg.norm(ours - theirs, axis=1) < 1.5
    assert len(matches) > 100
    assert right.mean() > 0.9
