"""SuperVLAD: soft-assigned sums of the local descriptors themselves, without any centres.

Lu et al., "SuperVLAD: Compact and Robust Image Descriptors for Visual Place Recognition"
(NeurIPS 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vladmap.models.aggregations.base import Aggregation
from vladmap.weights.entries import Entries


class SuperVLAD(Aggregation):
    """(N, D, H, W) feature maps -> (N, K * D) unit vectors, cluster-major.

    The softmax of `assignment` (K + G, D) times the L2-normalised local descriptor is the share of
    each location in each cluster. The last G = `ghosts` clusters collect what fits no other cluster
    and are dropped.
    """

    name = "supervlad"
    learns_words = True
    spare_words = 1
    trainable = True

    assignment: Tensor

    def __init__(self, assignment: Tensor, ghosts: int = 1) -> None:
        super().__init__()
        if not 0 <= ghosts < len(assignment):
            raise ValueError(f"{ghosts} ghost clusters of {len(assignment)} leave none to keep")
        self.ghosts = ghosts
        self.register_buffer("assignment", assignment.float())

    @classmethod
    def from_words(cls, centres: Tensor, alpha: float) -> SuperVLAD:
        """Assignment by the cosine to each of the (K + 1, D) k-means centres, times `alpha`."""
        return cls(alpha * functional.normalize(centres.double(), dim=1), cls.spare_words)

    @classmethod
    def from_tensors(
        cls, entries: Entries, channels: int, settings: Mapping[str, Any]
    ) -> SuperVLAD:
        assignment = entries.shaped("assignment", "K", channels)
        return cls(assignment, int(settings["ghosts"]))

    def card(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "clusters": self.clusters,
            "dimension": self.assignment.shape[1],
            "ghosts": self.ghosts,
        }

    @property
    def clusters(self) -> int:
        return len(self.assignment) - self.ghosts

    @property
    def dimension(self) -> int:
        return self.clusters * self.assignment.shape[1]

    def forward(self, features: Tensor) -> Tensor:
        local = functional.normalize(features.float().flatten(2), dim=1)  # (N, D, L)
        shares = torch.softmax(self.assignment @ local, dim=1)[:, : self.clusters]
        sums = functional.normalize(shares @ local.transpose(1, 2), dim=2)
        return functional.normalize(sums.flatten(1), dim=1)
