"""Bags of visual words: histograms of the nearest centres, weighted by how rare a word is.

Sivic & Zisserman, "Video Google: A Text Retrieval Approach to Object Matching in Videos"
(ICCV 2003).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def word_counts(descriptors: NDArray[np.float32], words: NDArray[np.float32]) -> NDArray[np.int64]:
    """Count the (n, d) local descriptors nearest to each of the (K, d) words, (K,)."""
    nearest = np.argmin(np.square(words).sum(axis=1) - 2 * (descriptors @ words.T), axis=1)
    return np.bincount(nearest, minlength=len(words))


def inverse_document_frequency(images_with: NDArray[np.int64], images: int) -> NDArray[np.float32]:
    """ln(N / N_i) for each word i, which N_i of N `images` contain; N_i = 0 is taken as 1."""
    return np.log(images / np.maximum(images_with, 1)).astype(np.float32)


def bag_of_words(counts: NDArray[np.int64], idf: NDArray[np.float32]) -> NDArray[np.float32]:
    """tf-idf (K,) of unit L2 norm: the share of each word among the image's words, times its idf.

    The result is the zero vector for an image that has no words, or only words that every image
    has (their idf is 0).
    """
    weighted = counts / max(1, counts.sum()) * idf
    norm = np.linalg.norm(weighted)
    return (weighted / norm if norm > 0 else weighted).astype(np.float32)
