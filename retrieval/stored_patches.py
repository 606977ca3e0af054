"""Patch descriptors in memory (float32) and as an atlas stores them (int8)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LARGEST = 127


class Patches(NamedTuple):
    """Patch descriptors of N images of one size, a list entry for each patch size.

    `descriptors[s]` is (N, P, d) with rows of unit L2 norm, patches row by row from the top left;
    `centres[s]` (P, 2) float32 are their centres as x, y in pixels of the image at the model's
    input size, with the first pixel's centre at 0, 0.
    """

    descriptors: list[NDArray[np.float32]]
    centres: list[NDArray[np.float32]]


class StoredPatches(NamedTuple):
    """`Patches` quantised to int8: a row times its entry of `scales[s]` (N, P) gives the floats."""

    descriptors: list[NDArray[np.int8]]
    centres: list[NDArray[np.float32]]
    scales: list[NDArray[np.float32]]


def quantise(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise rows (..., d) to int8 (..., d) with a scale (...) for each: row ~ int8 * scale.

    The number of largest magnitude in a row becomes 127 or -127, so that the error of each number
    is at most 1/254 of that magnitude.
    """
    largest = np.abs(rows).max(axis=-1)
    scale = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    return np.round(rows / scale[..., None]).astype(np.int8), scale


def stored(patches: Patches) -> StoredPatches:
    """The patches quantised to int8, which take a quarter of the bytes."""
    pairs = [quantise(rows) for rows in patches.descriptors]
    return StoredPatches([rows for rows, _ in pairs], patches.centres, [s for _, s in pairs])


def bytes_an_image(counts: list[int], dimension: int, kind: str) -> int:
    """Bytes that the patches of one image take: `counts` patches of each size, int8 or float16."""
    row = {"int8": dimension + 4, "float16": 2 * dimension, "float32": 4 * dimension}[kind]
    return sum(counts) * row
