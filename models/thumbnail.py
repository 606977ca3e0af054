"""Thumbnails as descriptors: what SeqSLAM compares photographs by.

Milford and Wyeth, "SeqSLAM: Visual route-based navigation for sunny summer days and stormy winter
nights" (ICRA 2012): grey pictures of 64 x 32 pixels, in which every patch of 8 x 8 pixels is
brought to mean 0 and standard deviation 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from safetensors.numpy import save

from vladmap.models.base import DescriptorModel, Floats, ModelSpec, Pixels, digest, resize
from vladmap.weights.preprocessing import FixedSize

WIDTH, HEIGHT, PATCH = 64, 32, 8  # pixels

GEOMETRY_NAME = "thumbnail.geometry"
GEOMETRY = np.array([WIDTH, HEIGHT, PATCH], np.int32)
"""What an atlas keeps as the file of this model, which has no weights."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

_LEAST_CONTRAST = 2.0
"""Standard deviation, in grey levels of 255, below which a patch shows the camera's noise alone."""


class ThumbnailModel(DescriptorModel):
    """Patch-normalised grey thumbnails as unit vectors of 2,048 numbers, row by row.

    A patch without contrast would be normalised to noise: it is zero, which is no evidence for or
    against any match. The row of a picture without any contrast (a black one) is zero, which is no
    match of any. Between pictures whose patches all have contrast, the squared distance of the unit
    vectors is the mean squared difference of the normalised pixels.
    """

    def __init__(self) -> None:
        name = "thumbnail"
        self.spec = ModelSpec(
            name=name,
            dimension=WIDTH * HEIGHT,
            patch_sizes=(),
            input_size=FixedSize(WIDTH, HEIGHT),
            fingerprint=digest(f"{name} 1 contrast {_LEAST_CONTRAST}", {"geometry": GEOMETRY}),
        )

    def describe(self, images: Sequence[Pixels]) -> Floats:
        if not images:
            return np.zeros((0, self.spec.dimension), np.float32)
        small = np.stack([resize(image, (WIDTH, HEIGHT)) for image in images])
        rows = patch_normalised(small @ _LUMA).reshape(len(small), -1)
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        unit: Floats = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
        return unit


def thumbnail_file() -> bytes:
    """The file that stands for the model in an atlas, as safetensors."""
    return save({GEOMETRY_NAME: GEOMETRY})


def patch_normalised(grey: Floats) -> Floats:
    """(N, H, W) float32 grey pictures -> the same, each patch with mean 0 and deviation 1.

    H and W are multiples of PATCH. A patch whose standard deviation is below 2 grey levels is zero.
    """
    count, height, width = grey.shape
    patches = grey.reshape(count, height // PATCH, PATCH, width // PATCH, PATCH)
    centred = patches - patches.mean(axis=(2, 4), keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=(2, 4), keepdims=True))
    normal: Floats = np.divide(
        centred, deviation, out=np.zeros_like(centred), where=deviation >= _LEAST_CONTRAST
    )
    return normal.reshape(grey.shape)
