"""What all local features have in common: their form, the interfaces of extractors and matchers.

Keypoints are in pixels of the full-size upright image with COLMAP's origin, the upper-left corner
of the upper-left pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vladmap.weights.devices import CPU, DEVICES

Matches = NDArray[np.uint32]
"""(m, 2) rows of one image's features and of another's that show the same points."""


@dataclass(frozen=True)
class LocalFeatures:
    """The n local features of one image.

    `keypoints`: (n, 4) float32: x, y, scale in pixels of the full-size upright image, orientation
    in radians. `descriptors`: (n, d) of the kind's type. `size`: (width, height) of that image,
    None where it is unknown.
    """

    keypoints: NDArray[np.float32]
    descriptors: NDArray[np.generic]
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.keypoints)

    def rows(self, chosen: NDArray[np.integer]) -> LocalFeatures:
        """The features at the `chosen` (m,) rows, in that order."""
        return LocalFeatures(self.keypoints[chosen], self.descriptors[chosen], self.size)


class LocalFeatureExtractor(Protocol):
    """Detects and describes local features; on one device, equal pixels give equal bytes."""

    def extract(self, rgb: NDArray[np.uint8]) -> LocalFeatures:
        """The features of an (H, W, 3) uint8 image; none where nothing is detected."""

    def extract_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[LocalFeatures]:
        """The features of (H, W, 3) uint8 images that all have one size, each as `extract` gives
        it, up to the rounding of sums that a network adds in another order.

        Raises ValueError where their sizes differ.
        """


class Matcher(Protocol):
    """Matches the features of two images, both of one kind.

    It can be pickled, and called from several threads at once.
    """

    @property
    def min_inlier_share(self) -> float:
        """The least share of a pair's matches that must be inliers for the pair to be verified."""

    @property
    def inliers_a_cosine(self) -> float:
        """Inliers that count as much as a cosine of 1 when candidates are re-ranked."""

    def match(self, a: LocalFeatures, b: LocalFeatures) -> Matches:
        """The (m, 2) rows of `a` and `b` that show the same point, one to one, by row of `a`.

        Raises ValueError for descriptors of another kind.
        """


@dataclass(frozen=True)
class FeatureKind:
    """One kind of local features: how they are extracted, their form, and how they are matched.

    `extractor(max_features=..., max_image_size=...)` makes an extractor; both have defaults. Where
    `devices` has more than the CPU, it takes `device` too. `dtype` and `dimension` are those of a
    descriptor. `nearest` matches by nearest neighbours, on the CPU. `parallelism` says how several
    images are extracted at once: in `processes` where the library holds the interpreter's lock,
    else in `threads`, one image each. `order` says which features to keep where only some can be:
    the `largest`, or the `first`, where the extractor returns the most reliable first.
    """

    name: str
    dimension: int
    dtype: np.dtype[np.generic]
    extractor: Callable[..., LocalFeatureExtractor]
    nearest: Matcher
    parallelism: Literal["processes", "threads"]
    order: Literal["largest", "first"]
    devices: tuple[str, ...]

    def device(self, wanted: str) -> str:
        """The device that extracts them where the user chose `wanted`: the CPU where only that can.

        Raises ValueError for a name that is no device.
        """
        if wanted not in DEVICES:
            raise ValueError(f"unknown device {wanted!r}; known are {', '.join(DEVICES)}")
        return wanted if wanted in self.devices else CPU

    def none(self, size: tuple[int, int] | None = None) -> LocalFeatures:
        """The features of an image that has none."""
        return LocalFeatures(
            np.zeros((0, 4), np.float32), np.zeros((0, self.dimension), self.dtype), size
        )

    def strongest(self, features: LocalFeatures, count: int) -> LocalFeatures:
        """The `count` best features according to `order`, in their original order."""
        if self.order == "first":
            return features.rows(np.arange(min(len(features), count)))
        by_scale = np.argsort(-features.keypoints[:, 2], kind="stable")
        return features.rows(np.sort(by_scale[:count]))


def shape_of(images: Sequence[NDArray[np.uint8]]) -> tuple[int, int]:
    """(height, width) of images that have one size; ValueError where they do not."""
    shapes = {image.shape[:2] for image in images}
    if len(shapes) != 1:
        raise ValueError(f"a batch has images of one size, not of {len(shapes)}")
    height, width = shapes.pop()
    return height, width


def shrink(image: Image.Image, long_side: int) -> tuple[Image.Image, tuple[float, float]]:
    """Return `image` with its long side at most `long_side`, and (x, y) factors back to full size.

    Each pixel of the result averages the pixels that it covers, so that texture does not alias.
    """
    width, height = image.size
    ratio = long_side / max(width, height)
    if ratio >= 1.0:
        return image, (1.0, 1.0)
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return image.resize(size, Image.Resampling.BOX), (width / size[0], height / size[1])
