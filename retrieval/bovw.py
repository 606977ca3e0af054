"""Bags of visual words: histograms of the nearest centres, weighted by how rare a word is.

Sivic & Zisserman, "Video Google: A Text Retrieval Approach to Object Matching in Videos"
(ICCV 2003).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def word_counts(descriptors: NDArray[np.float32], words: NDArray[np.float32]) -> NDArray[np.int64]:
    """(n, d) local descriptors and (K, d) words -> how many are nearest to each word (K,)."""
    nearest = np.argmin(np.square(words).sum(axis=1) - 2 * (descriptors @ words.T), axis=1)
    return np.bincount(nearest, minlength=len(words))


def inverse_document_frequency(images_with: NDArray[np.int64], images: int) -> NDArray[np.float32]:
    """ln(N / N_i) of the N `images`, N_i of them having word i; a word of none counts as of one."""
    return np.log(images / np.maximum(images_with, 1)).astype(np.float32)


def bag_of_words(counts: NDArray[np.int64], idf: NDArray[np.float32]) -> NDArray[np.float32]:
    """tf-idf (K,) of unit L2 norm: a word's share of the image's words, times its weight.

    An image without words, or with none but those that every image has, has the zero vector.
    """
    weighted = counts / max(1, counts.sum()) * idf
    norm = np.linalg.norm(weighted)
    return (weighted / norm if norm > 0 else weighted).astype(np.float32)
