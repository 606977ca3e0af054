"""NetVLAD: soft assignment of local descriptors to centres, and the sums of their residuals.

Arandjelovic et al., "NetVLAD: CNN architecture for weakly supervised place recognition"
(CVPR 2016).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vladmap.models.aggregations.base import Aggregation
from vladmap.models.aggregations.patches import patch_descriptors
from vladmap.weights.entries import Entries

_NO_FLOOR = 1e-12


class NetVLAD(Aggregation):
    """(N, D, H, W) feature maps -> (N, K * D) unit vectors, cluster-major.

    The softmax of `assignment` (K, D) times the L2-normalised local descriptor, plus `bias` (K), is
    the share of each location in each cluster; residuals are the differences to the `centres` (K,
    D). `v2` initialises these parameters so that assignment is by distance; in a trained model they
    may differ from that.

    `floor` is the least length that intra-normalisation divides by. As published it is 0, and a
    cluster with a hundredth of one location counts as much as any other; with a larger floor, a
    cluster with little in it stays short.
    """

    name = "netvlad"
    learns_words = True
    trainable = True
    has_patches = True

    def __init__(
        self, centres: Tensor, assignment: Tensor, bias: Tensor | None, floor: float = _NO_FLOOR
    ) -> None:
        super().__init__()
        self.floor = floor
        self.register_buffer("centres", centres.float())
        self.register_buffer("assignment", assignment.float())
        self.register_buffer("bias", torch.zeros(len(centres)) if bias is None else bias.float())

    centres: Tensor
    assignment: Tensor
    bias: Tensor

    @classmethod
    def v2(cls, centres: Tensor, alpha: float, floor: float = _NO_FLOOR) -> NetVLAD:
        """Assignment by -alpha times the squared distance to each centre.

        The larger `alpha`, the closer to VLAD's hard assignment.
        """
        exact = centres.double()
        return cls(centres, 2 * alpha * exact, -alpha * exact.square().sum(dim=1), floor)

    @classmethod
    def from_words(cls, centres: Tensor, alpha: float = 0.0) -> NetVLAD:
        """Made of (K, D) centres without training; `alpha` is not used.

        The softmax is close to VLAD's hard assignment, which measured best (recall@1 on 303 pairs:
        57 % at alpha 10, 66 at 30, 69 at 100, 68 with hard assignment), but is continuous, so that
        rounding in the backbone cannot move a location from one cluster to another. The floor keeps
        clusters with little in them short, as they are in VLAD.
        """
        return cls.v2(centres, 100.0, 1.0)

    @classmethod
    def from_tensors(cls, entries: Entries, channels: int, settings: Mapping[str, Any]) -> NetVLAD:
        centres = entries.shaped("centres", "K", channels)
        assignment = entries.shaped("assignment", len(centres), channels)
        bias = entries.shaped("bias", len(centres)) if "bias" in entries else None
        return cls(centres, assignment, bias, float(settings.get("floor", _NO_FLOOR)))

    def card(self) -> dict[str, Any]:
        clusters, channels = self.centres.shape
        return {
            "name": self.name,
            "clusters": clusters,
            "dimension": channels,
            "floor": self.floor,
        }

    @property
    def clusters(self) -> int:
        return self.centres.shape[0]

    @property
    def dimension(self) -> int:
        return self.centres.numel()

    def assign(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D, H, W) -> unit local descriptors (N, D, L) and their shares (N, K, L)."""
        local = functional.normalize(features.float().flatten(2), dim=1)
        return local, torch.softmax(self.assignment @ local + self.bias[:, None], dim=1)

    def forward(self, features: Tensor) -> Tensor:
        local, shares = self.assign(features)
        # sum_l a_k(x_l) (x_l - c_k) as two matrix products, without an N x K x D x L array.
        residuals = shares @ local.transpose(1, 2) - shares.sum(2)[:, :, None] * self.centres
        residuals = functional.normalize(residuals, dim=2, eps=self.floor)
        return functional.normalize(residuals.flatten(1), dim=1)

    def patches(
        self,
        features: Tensor,
        sizes: tuple[int, ...],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> list[Tensor]:
        return patch_descriptors(self, features, sizes, weight, bias)


def initial_alpha(descriptors: Tensor, centres: Tensor) -> float:
    """The sharpness at which a typical descriptor's best cluster has 100 times the second's share.

    `descriptors` (n, D) are unit rows, `centres` (K, D) from k-means on them. As published:
    -ln(0.01) over the mean gap between a descriptor's two largest cosines to the centres. Raises
    ValueError for fewer than two centres, or where the gap is nil.
    """
    if len(centres) < 2:
        raise ValueError("alpha needs two centres to choose between")
    best = (descriptors.double() @ functional.normalize(centres.double(), dim=1).T).topk(2).values
    gap = float((best[:, 0] - best[:, 1]).mean())
    if gap <= 0:
        raise ValueError("all descriptors are as near to a second centre as to their own")
    return -math.log(0.01) / gap
