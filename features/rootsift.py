"""RootSIFT: COLMAP's SIFT on the CPU; descriptors are square roots of normalised histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vladmap.features.base import FeatureKind, LocalFeatures, shape_of, shrink
from vladmap.features.colmap import pycolmap
from vladmap.features.nearest import RatioTest
from vladmap.weights.devices import CPU

# Up to this long side SIFT's pyramid starts at the doubled image: small photographs have too few
# keypoints otherwise. On larger ones it would take four times as long, for detail that is blurred.
_DOUBLED_UP_TO_PX = 1024


class RootSift:
    """COLMAP's SIFT on the CPU, as RootSIFT (Arandjelovic and Zisserman, CVPR 2012).

    The `max_features` keypoints of the largest scale are kept; an image whose long side exceeds
    `max_image_size` is shrunk to it first. COLMAP holds the interpreter's lock during extraction,
    so only processes, not threads, extract in parallel.
    """

    def __init__(self, max_features: int = 2048, max_image_size: int = 1600) -> None:
        if max_features < 1 or max_image_size < 1:
            raise ValueError("max_features and max_image_size must be at least 1")
        self.max_features = max_features
        self.max_image_size = max_image_size
        self._extractors: dict[int, pycolmap.FeatureExtractor] = {}

    def extract(self, rgb: NDArray[np.uint8]) -> LocalFeatures:
        """Return the RootSIFT features of an (H, W, 3) uint8 image; none for one of one colour."""
        size = (rgb.shape[1], rgb.shape[0])
        grey = Image.fromarray(rgb).convert("L")
        grey, scale = shrink(grey, self.max_image_size)
        first_octave = -1 if max(grey.size) <= _DOUBLED_UP_TO_PX else 0
        points, descriptors = self._extractor(first_octave).extract_from_uint8_array(
            np.asarray(grey)
        )
        if len(points) == 0:
            return KIND.none(size)
        keypoints = np.asarray(pycolmap.keypoints_to_matrix(points), np.float32)
        keypoints[:, :2] *= np.asarray(scale, np.float32)
        keypoints[:, 2] *= np.float32(math.sqrt(scale[0] * scale[1]))
        # SIFT keeps whole scale levels, so the limit can be exceeded by a few.
        order = np.argsort(-keypoints[:, 2], kind="stable")[: self.max_features]
        order.sort()
        return LocalFeatures(keypoints[order], np.asarray(descriptors.data)[order], size)

    def extract_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[LocalFeatures]:
        """One after the other."""
        shape_of(images)
        return [self.extract(image) for image in images]

    def _extractor(self, first_octave: int) -> pycolmap.FeatureExtractor:
        extractor = self._extractors.get(first_octave)
        if extractor is None:
            options = pycolmap.FeatureExtractionOptions(num_threads=1, use_gpu=False)
            options.sift.max_num_features = self.max_features
            options.sift.first_octave = first_octave
            extractor = pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)
            self._extractors[first_octave] = extractor
        return extractor

    def __reduce__(self) -> tuple[type[RootSift], tuple[int, int]]:
        return RootSift, (self.max_features, self.max_image_size)


KIND = FeatureKind(
    name="sift",
    dimension=128,
    dtype=np.dtype(np.uint8),
    extractor=RootSift,
    nearest=RatioTest(),
    parallelism="processes",
    order="largest",
    devices=(CPU,),
)
