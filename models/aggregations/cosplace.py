"""CosPlace's and EigenPlaces' head: generalised-mean pooling and a linear layer.

Berton et al., "Rethinking Visual Geo-localization for Large-Scale Applications" (CVPR 2022);
Berton et al., "EigenPlaces: Training Viewpoint Robust Models for Visual Place Recognition"
(ICCV 2023). The two differ in how they were trained, not in what they compute.

Their checkpoints have the same names and shapes of tensors and no metadata, so that they cannot be
told apart: the file of one method also loads under the name of the other. The name is recorded in
the model's fingerprint, so that descriptors under the two names are never compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from vladmap.models.aggregations.base import Aggregation, Published
from vladmap.models.aggregations.gem import GeM
from vladmap.weights.entries import Entries
from vladmap.weights.preprocessing import IMAGENET_MEAN, IMAGENET_STD, GivenSize, Preprocessing

# Trained on crops of 512 pixels and tested on photographs of 640 x 480.
_SIZE = GivenSize(shortest=32, longest=640)


class CosPlace(Aggregation):
    """(N, D, H, W) feature maps -> (N, `dimension`) unit vectors.

    Locations are normalised, pooled by the generalised mean of power `power`, and go through a
    linear layer of `weight` (`dimension`, D) and `bias`.
    """

    name = "cosplace"
    published = Published(
        "CosPlace or EigenPlaces",
        marks=("backbone.", "aggregation.1.p", "aggregation.3."),
        backbone=("backbone.",),
        aggregation="aggregation.",
        preprocessing=Preprocessing(IMAGENET_MEAN, IMAGENET_STD, _SIZE),
    )

    weight: Tensor
    bias: Tensor

    def __init__(self, power: float, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.pooling = GeM(weight.shape[1], power, normalise_locals=True)
        self.register_buffer("weight", weight.float())
        self.register_buffer("bias", bias.float())

    @classmethod
    def from_tensors(cls, entries: Entries, channels: int, settings: Mapping[str, Any]) -> CosPlace:
        # vladmap's own files have a card and this class's names of tensors, its authors' do not.
        power, layer = ("pooling.power", "") if settings else ("1.p", "3.")
        weight = entries.shaped(f"{layer}weight", "d", channels)
        bias = entries.shaped(f"{layer}bias", len(weight))
        return cls(entries.number(power), weight, bias)

    def card(self) -> dict[str, Any]:
        return {"name": self.name, "dimension": self.dimension}

    @property
    def dimension(self) -> int:
        return len(self.weight)

    def forward(self, features: Tensor) -> Tensor:
        pooled = self.pooling(features)
        return functional.normalize(functional.linear(pooled, self.weight, self.bias), dim=1)
