"""MegaLoc: optimal transport from local descriptors to clusters, on DINOv2, and a linear layer.

Berton & Masone, "MegaLoc: One Retrieval to Place Them All" (2025, arXiv 2502.17237); the optimal
transport is that of Izquierdo & Civera, "Optimal Transport Aggregation for Visual Place
Recognition" (CVPR 2024).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vladmap.models.aggregations.base import Aggregation, Published
from vladmap.models.backbones.view import Resampling, View
from vladmap.schemas.rejects import UserError
from vladmap.weights.entries import Entries
from vladmap.weights.preprocessing import IMAGENET_MEAN, IMAGENET_STD, GivenSize, Preprocessing

_CELL = 14  # pixels from a cell of DINOv2's feature map to the next
_ITERATIONS = 3  # of Sinkhorn's algorithm

# A photograph is decoded at a long side of 448 pixels, which gives about 1.5 times as many tokens
# as the square of 322 pixels that such models are evaluated on, and at 9 cells or more a side: the
# smallest square with more cells than there are clusters.
_SIZE = GivenSize(shortest=9 * _CELL, longest=32 * _CELL)


class MegaLoc(Aggregation):
    """(N, D, H, W) patch tokens and (N, D) class tokens -> (N, `dimension`).

    Sinkhorn's algorithm assigns shares of each location to K clusters and to a dustbin, which is
    dropped. A cluster's vector is the sum of the projected local descriptors weighted by its
    shares, normalised. The projected class token, normalised, is put before the cluster vectors,
    which are flattened channel by channel; a linear layer maps the whole to the descriptor.
    """

    name = "megaloc"
    published = Published(
        "MegaLoc",
        marks=("aggregator.agg.",),
        backbone=("backbone.model.", "backbone."),
        aggregation="aggregator.",
        preprocessing=Preprocessing(IMAGENET_MEAN, IMAGENET_STD, _SIZE),
    )

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """`state` holds what `from_tensors` reads."""
        super().__init__()
        outputs, inputs = state["linear.weight"].shape
        # On "meta" the 140 million weights are not initialised at random before they are replaced.
        with torch.device("meta"):
            self.agg = nn.ModuleDict(
                {
                    "token_features": _perceptron(state, "agg.token_features", 2),
                    "cluster_features": _perceptron(state, "agg.cluster_features", 3),
                    "score": _perceptron(state, "agg.score", 3),
                }
            )
            self.linear = nn.Linear(inputs, outputs)
        self.load_state_dict(dict(state), assign=True)
        self.requires_grad_(False)

    @classmethod
    def from_tensors(cls, entries: Entries, channels: int, settings: Mapping[str, Any]) -> MegaLoc:
        state = _perceptron_entries(entries, "agg.token_features", channels, 2, convolution=False)
        state |= _perceptron_entries(entries, "agg.cluster_features", channels, 3, convolution=True)
        state |= _perceptron_entries(entries, "agg.score", channels, 3, convolution=True)
        clusters = len(state["agg.score.3.bias"])
        inputs = len(state["agg.token_features.2.bias"])
        inputs += clusters * len(state["agg.cluster_features.3.bias"])
        weight = entries.shaped("linear.weight", "D", inputs)
        bias = entries.shaped("linear.bias", len(weight))
        return cls(state | {"linear.weight": weight.float(), "linear.bias": bias.float()})

    @classmethod
    def view(cls, backbone_weights: Mapping[str, Tensor]) -> View:
        return View(class_token=True, resampling=Resampling("bilinear", multiple=_CELL))

    def card(self) -> dict[str, Any]:
        return {"name": self.name, "clusters": self.clusters, "dimension": self.dimension}

    @property
    def clusters(self) -> int:
        """The number of clusters, without the dustbin."""
        last: nn.Conv2d = self.agg["score"].get_submodule("3")  # type: ignore[assignment]
        return last.out_channels

    @property
    def dimension(self) -> int:
        return self.linear.out_features

    def forward(self, features: Tensor, class_token: Tensor) -> Tensor:
        """Raises UserError for a map of no more cells than there are clusters."""
        height, width = features.shape[2:]
        # An exported graph raises no errors: its descriptor is not a number then.
        if not torch.compiler.is_exporting() and height * width <= self.clusters:
            raise UserError(
                f"an image of {_CELL * width} x {_CELL * height} pixels has {height * width} "
                f"patches, and MegaLoc needs more than {self.clusters}: enlarge it"
            )
        local = self.agg["cluster_features"](features).flatten(2)  # (N, d, L)
        shares = _shares(self.agg["score"](features).flatten(2))  # (N, K, L)
        sums = functional.normalize(local @ shares.transpose(1, 2), dim=1).flatten(1)
        token = functional.normalize(self.agg["token_features"](class_token), dim=1)
        whole = functional.normalize(torch.cat([token, sums], dim=1), dim=1)
        return functional.normalize(self.linear(whole), dim=1)


def _shares(scores: Tensor) -> Tensor:
    """Shares (N, K, L) of each of L locations that are assigned to each of K clusters, from scores.

    Sinkhorn's algorithm in the log domain. A cluster's shares sum to 1, those of the dustbin to the
    rest, L - K. The dustbin's score is the same at all locations and so cancels out.
    """
    clusters, locations = scores.shape[1:]
    scores = functional.pad(scores, (0, 0, 0, 1))
    capacity = scores.new_zeros(clusters + 1, 1)
    if torch.compiler.is_exporting():
        # The number of locations is not known then, and its logarithm is a part of the graph.
        rest = torch.scalar_tensor(locations - clusters, dtype=torch.float64).log().to(scores)
        capacity = torch.cat([capacity[:-1], rest.reshape(1, 1)])
    else:
        capacity[-1] = math.log(locations - clusters)
    by_location = scores.new_zeros(scores.shape[0], 1, locations)
    for _ in range(_ITERATIONS):
        by_cluster = capacity - torch.logsumexp(scores + by_location, dim=2, keepdim=True)
        by_location = -torch.logsumexp(scores + by_cluster, dim=1, keepdim=True)
    return (scores + by_cluster + by_location)[:, :-1].exp()


def _perceptron(state: Mapping[str, Tensor], name: str, last: int) -> nn.Module:
    """Two layers, numbered 0 and `last`, with a ReLU between them."""
    layers: list[nn.Module] = []
    for place in (0, last):
        weight = state[f"{name}.{place}.weight"]
        outputs, inputs = weight.shape[:2]
        layers.append(
            nn.Linear(inputs, outputs) if weight.ndim == 2 else nn.Conv2d(inputs, outputs, 1)
        )
    first, second = layers
    return nn.Sequential(OrderedDict({"0": first, "relu": nn.ReLU(), str(last): second}))


def _perceptron_entries(
    entries: Entries, name: str, channels: int, last: int, convolution: bool
) -> dict[str, Tensor]:
    tail = (1, 1) if convolution else ()
    state = {}
    inputs = channels
    for place in (0, last):
        weight = entries.shaped(f"{name}.{place}.weight", "d", inputs, *tail)
        bias = entries.shaped(f"{name}.{place}.bias", len(weight))
        state[f"{name}.{place}.weight"], state[f"{name}.{place}.bias"] = weight, bias
        inputs = len(weight)
    return {key: tensor.float() for key, tensor in state.items()}
