"""The feature kind `sift`: RootSIFT by OpenCV, and by COLMAP of photographs that are large."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vladmap.features.base import FeatureKind, LocalFeatures, shape_of, shrink
from vladmap.features.nearest import RatioTest
from vladmap.features.rootsift import DOUBLED_UP_TO_PX, RootSift
from vladmap.weights.devices import CPU

# Photographs are worked on beside each other, each on one core.
cv2.setNumThreads(1)


class Sift:
    """SIFT (Lowe, IJCV 2004) as RootSIFT (Arandjelovic and Zisserman, CVPR 2012).

    The `max_features` keypoints of highest contrast are kept; an image whose long side exceeds
    `max_image_size` is shrunk to it first. OpenCV's pyramid begins at the doubled image always:
    images of more than DOUBLED_UP_TO_PX, for which that is too much, are left to COLMAP, which
    keeps the largest. Of the others OpenCV takes a third of COLMAP's time. COLMAP holds the
    interpreter's lock, so only processes extract in parallel.
    """

    def __init__(self, max_features: int = 2048, max_image_size: int = 1600) -> None:
        if max_features < 1 or max_image_size < 1:
            raise ValueError("max_features and max_image_size must be at least 1")
        self.max_features = max_features
        self.max_image_size = max_image_size

    def extract(self, rgb: NDArray[np.uint8]) -> LocalFeatures:
        """Return the RootSIFT features of an (H, W, 3) uint8 image, by falling contrast or size;
        none for one of one colour."""
        height, width = rgb.shape[:2]
        if min(self.max_image_size, max(width, height)) > DOUBLED_UP_TO_PX:
            found = self._of_large.extract(rgb)
            return found.rows(np.argsort(-found.keypoints[:, 2], kind="stable"))
        grey, factor = shrink(Image.fromarray(rgb).convert("L"), self.max_image_size)
        # Without the precise doubling keypoints lie a quarter of a pixel off.
        detector = cv2.SIFT.create(nfeatures=self.max_features, enable_precise_upscale=True)
        points, descriptors = detector.detectAndCompute(np.asarray(grey), None)
        if not points:
            return KIND.none((width, height))
        keypoints = np.array(
            [(*point.pt, point.size / 2, np.radians(point.angle)) for point in points], np.float32
        )
        contrast = np.array([point.response for point in points])
        # A keypoint of two orientations has one contrast. Of equal ones OpenCV may keep a few more.
        order = np.lexsort((keypoints[:, 3], keypoints[:, 1], keypoints[:, 0], -contrast))
        order = order[: self.max_features]
        keypoints = keypoints[order]
        # OpenCV's origin is the centre of the first pixel.
        keypoints[:, :2] = (keypoints[:, :2] + 0.5) * np.asarray(factor, np.float32)
        keypoints[:, 2] *= np.float32(np.sqrt(factor[0] * factor[1]))
        return LocalFeatures(
            keypoints, _root(np.asarray(descriptors, np.float32)[order]), (width, height)
        )

    def extract_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[LocalFeatures]:
        """One after the other."""
        shape_of(images)
        return [self.extract(image) for image in images]

    @cached_property
    def _of_large(self) -> RootSift:
        return RootSift(self.max_features, self.max_image_size)

    def __reduce__(self) -> tuple[type[Sift], tuple[int, int]]:
        return Sift, (self.max_features, self.max_image_size)


def _root(histograms: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Square roots of the (n, 128) histograms, each of sum 1, in steps of 1/512 as COLMAP's."""
    shares = histograms / np.maximum(histograms.sum(axis=1, keepdims=True), 1e-6)
    return np.clip(np.round(512.0 * np.sqrt(shares)), 0, 255).astype(np.uint8)


KIND = FeatureKind(
    name="sift",
    dimension=128,
    dtype=np.dtype(np.uint8),
    extractor=Sift,
    nearest=RatioTest(),
    parallelism="processes",
    devices=(CPU,),
)
