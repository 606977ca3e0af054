"""The interface of descriptor models, and what they have in common."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vladmap.retrieval.stored_patches import Patches
from vladmap.weights.preprocessing import Size

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ModelSpec:
    """What a table or an index records of the model that made its descriptors.

    `patch_sizes` are in cells of the feature map and empty for a model without patch descriptors.
    `fingerprint` digests the name, the architecture's version, every weight and the
    pre-processing: descriptors of two fingerprints must not be compared.
    """

    name: str
    dimension: int
    patch_sizes: tuple[int, ...]
    input_size: Size
    fingerprint: str


class DescriptorModel(ABC):
    """Computes unit vectors of photographs; their inner product is the similarity of two images."""

    spec: ModelSpec

    def input_long_side(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) in pixels of an image that `describe` does not have to resample.

        Callers decode photographs directly at this size, which is faster than at full size.
        """
        return self.spec.input_size.target(width, height)

    @abstractmethod
    def describe(self, images: Sequence[Pixels]) -> Floats:
        """Global descriptors of upright RGB images.

        `images` are (H, W, 3) uint8 of any sizes; the result is (N, D) float32 with rows of unit
        L2 norm, each independent of the other images of the call. The row of an image in which a
        classical model finds no local feature is zero instead.
        """

    def describe_patches(self, images: Sequence[Pixels]) -> Patches:
        """Patch descriptors of upright (H, W, 3) uint8 RGB images, for re-ranking.

        All images must have the same size at the model's input, so that their patches lie at the
        same places. Raises ValueError where they do not, or the model has no patch descriptors.
        """
        raise ValueError(f"the model {self.spec.name} has no patch descriptors")


def resize(image: Pixels, size: tuple[int, int]) -> Pixels:
    """`image` at (width, height) `size`, antialiased; the same array where it has that size.

    Images are enlarged by Pillow's Hamming filter: on thumbnails its recall@1 was one point above
    that of bilinear and bicubic.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
    if (image.shape[1], image.shape[0]) == size:
        return image
    enlarged = max(size) > max(image.shape[:2])
    resampling = Image.Resampling.HAMMING if enlarged else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize(size, resampling))


def batches(
    images: Sequence[Pixels], input_size: Size, batch_size: int
) -> Iterator[tuple[list[int], Pixels]]:
    """Batches of images that have the same size at the model's input, with their positions.

    Yields (positions, (B, H, W, 3) uint8). Images are not padded, so that a descriptor does not
    depend on the other images in its batch.
    """
    by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
    for position, image in enumerate(images):
        by_size[input_size.resized(image.shape[1], image.shape[0])].append(position)
    for size, positions in by_size.items():
        for start in range(0, len(positions), batch_size):
            chosen = positions[start : start + batch_size]
            yield chosen, np.stack([resize(images[position], size) for position in chosen])


def digest(description: str, arrays: Mapping[str, NDArray[np.generic]]) -> str:
    """BLAKE2b-128 in hex of a description and of named arrays: their names, shapes and bytes."""
    blake = hashlib.blake2b(description.encode(), digest_size=16)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        blake.update(f"\0{name} {array.dtype.str} {array.shape}\0".encode())
        blake.update(array.data if array.size else b"")
    return blake.hexdigest()
