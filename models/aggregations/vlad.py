"""VLAD over RootSIFT as a descriptor model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vladmap.models.base import DescriptorModel, Floats, ModelSpec, Pixels, digest
from vladmap.models.local import LocalDescriptors
from vladmap.models.whitening import Whitening, WhiteningLayer, whitening_arrays
from vladmap.retrieval.vlad import vlad


class VladModel(DescriptorModel):
    """Sums the residuals of `features` to `centres` (K, d), then applies the whitening, if any."""

    def __init__(
        self,
        name: str,
        features: LocalDescriptors,
        centres: Floats,
        whitening: Whitening | None = None,
    ) -> None:
        self._features = features
        self._centres = centres
        self._whiten = WhiteningLayer(whitening) if whitening else None
        arrays = {"centres": centres} | whitening_arrays(whitening)
        self.spec = ModelSpec(
            name=name,
            dimension=len(whitening.bias) if whitening else centres.size,
            patch_sizes=(),
            input_size=features.input_size,
            fingerprint=digest(f"{name} vlad 1 {features.digest}", arrays),
        )

    def describe(self, images: Sequence[Pixels]) -> Floats:
        descriptors = np.zeros((len(images), self._centres.size), np.float32)
        for row, local in enumerate(self._features.extract(images)):
            descriptors[row] = vlad(local, self._centres)
        if self._whiten is None:
            return descriptors
        empty = ~descriptors.any(axis=1)
        whitened = self._whiten(torch.from_numpy(descriptors)).numpy()
        whitened[empty] = 0
        return whitened
