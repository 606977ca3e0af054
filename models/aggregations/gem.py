"""Generalised-mean pooling (GeM), the simplest baseline.

Radenovic et al., "Fine-tuning CNN image retrieval with no human annotation" (TPAMI 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vladmap.models.aggregations.base import Aggregation
from vladmap.weights.entries import Entries

_LEAST = 1e-6  # smaller activations, negative ones among them, are raised to this


class GeM(Aggregation):
    """(N, D, H, W) feature maps -> (N, D): each channel's generalised mean of power `power`.

    With `normalise_locals`, each location is first brought to unit length, as in the deep visual
    geo-localization benchmark, and the pooled vector is not normalised; without it, only the pooled
    vector is.
    """

    name = "gem"
    needs_no_weights = True
    trainable = True

    power: Tensor

    def __init__(self, channels: int, power: float = 3.0, normalise_locals: bool = False) -> None:
        super().__init__()
        self._channels = channels
        self.normalise_locals = normalise_locals
        self.register_buffer("power", torch.tensor(float(power)))

    @classmethod
    def from_tensors(cls, entries: Entries, channels: int, settings: Mapping[str, Any]) -> GeM:
        return cls(channels, entries.number("power"), bool(settings["normalise_locals"]))

    @classmethod
    def on_backbone(cls, channels: int) -> GeM:
        return cls(channels)

    def card(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dimension": self.dimension,
            "normalise_locals": self.normalise_locals,
        }

    @property
    def dimension(self) -> int:
        return self._channels

    def forward(self, features: Tensor) -> Tensor:
        local = features.float().flatten(2)
        if self.normalise_locals:
            local = functional.normalize(local, dim=1)
        pooled = local.clamp(min=_LEAST).pow(self.power).mean(dim=2).pow(1 / self.power)
        return pooled if self.normalise_locals else functional.normalize(pooled, dim=1)
