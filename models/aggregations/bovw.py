"""Bags of visual words over RootSIFT as a descriptor model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vladmap.models.base import DescriptorModel, Floats, ModelSpec, Pixels, digest
from vladmap.models.local import LocalDescriptors
from vladmap.retrieval.bovw import bag_of_words, word_counts


class BovwModel(DescriptorModel):
    """Counts `features` by their nearest of `words` (K, d), weighted by `idf` (K,)."""

    def __init__(self, name: str, features: LocalDescriptors, words: Floats, idf: Floats) -> None:
        self._features, self._words, self._idf = features, words, idf
        self.spec = ModelSpec(
            name=name,
            dimension=len(words),
            patch_sizes=(),
            input_size=features.input_size,
            fingerprint=digest(f"{name} 1 {features.digest}", {"words": words, "idf": idf}),
        )

    def describe(self, images: Sequence[Pixels]) -> Floats:
        descriptors = np.zeros((len(images), len(self._words)), np.float32)
        for row, local in enumerate(self._features.extract(images)):
            if len(local):
                descriptors[row] = bag_of_words(word_counts(local, self._words), self._idf)
        return descriptors
