"""BoQ, a bag of learnable queries that probe the local features by cross-attention.

Ali-bey et al., "BoQ: A Place is Worth a Bag of Learnable Queries" (CVPR 2024, arXiv 2405.07364).
"""

from __future__ import annotations

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

_HEAD = 64  # numbers of an attention head
_RESNET, _TRANSFORMER = 384, 322  # pixels of the squares that images are resized to

# Decoded at more than twice the side of that square, so that the network's own resizing determines
# the result.
_SIZE = GivenSize(shortest=32, longest=1024)


class _Block(nn.Module):
    """A transformer encoder layer over the locations, and queries that attend to its output."""

    def __init__(self, width: int, hidden: int, queries: int) -> None:
        super().__init__()
        heads = width // _HEAD
        self.encoder = nn.TransformerEncoderLayer(
            width, heads, hidden, dropout=0.0, batch_first=True
        )
        self.queries = nn.Parameter(torch.empty(1, queries, width))
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_q = nn.LayerNorm(width)
        self.cross_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_out = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, L, d) locations -> the locations after the encoder, (N, Q, d) answers."""
        x = self.encoder(x)
        own = self.queries
        queries = self.norm_q(own + self.self_attn(own, own, own, need_weights=False)[0])
        queries = queries.expand(x.shape[0], -1, -1)
        return x, self.norm_out(self.cross_attn(queries, x, x, need_weights=False)[0])


class BoQ(Aggregation):
    """(N, D, H, W) feature maps -> (N, `dimension`) unit vectors.

    A 3x3 convolution projects the map to d channels. In each block, an encoder layer transforms the
    locations and the block's queries attend to them. A linear layer maps the outputs of all
    queries, separately for each channel, to R numbers: d * R together.
    """

    name = "boq"
    published = Published(
        "BoQ",
        marks=("backbone.", "aggregator.boqs."),
        backbone=("backbone.dino.", "backbone.net.", "backbone."),
        aggregation="aggregator.",
        preprocessing=Preprocessing(IMAGENET_MEAN, IMAGENET_STD, _SIZE),
    )

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """`state` holds what `from_tensors` reads."""
        super().__init__()
        width, channels = state["proj_c.weight"].shape[:2]
        with torch.device("meta"):
            self.proj_c = nn.Conv2d(channels, width, 3, padding=1)
            self.norm_input = nn.LayerNorm(width)
            self.boqs = nn.ModuleList()
            for block in range(_count(state)):
                hidden = len(state[f"boqs.{block}.encoder.linear1.bias"])
                queries = state[f"boqs.{block}.queries"].shape[1]
                self.boqs.append(_Block(width, hidden, queries))
            rows, inputs = state["fc.weight"].shape
            self.fc = nn.Linear(inputs, rows)
        self.load_state_dict(dict(state), assign=True)
        self.eval().requires_grad_(False)

    @classmethod
    def backbone_entries(cls, entries: Entries) -> Entries:
        """In files from before March 2025 the ResNet is split into frozen and unfrozen layers."""
        parts = entries.under("backbone.")
        names = {name: _of_parts(name, parts.tensors) for name in parts.tensors}
        if all(name == renamed for name, renamed in names.items()):
            return super().backbone_entries(entries)
        return parts.renamed(names)

    @classmethod
    def from_tensors(cls, entries: Entries, channels: int, settings: Mapping[str, Any]) -> BoQ:
        width = len(entries.shaped("proj_c.bias", "d"))
        if width % _HEAD:
            raise UserError(
                f"{entries.label}: {entries.full_name('proj_c.bias')} has {width} numbers, "
                f"expected a multiple of {_HEAD}"
            )
        shapes = {"proj_c.weight": (width, channels, 3, 3), "proj_c.bias": (width,)}
        shapes |= _norm_shapes("norm_input", width)
        total = 0
        for block in range(_count(entries.tensors)):
            name = f"boqs.{block}"
            queries = entries.shaped(f"{name}.queries", 1, "Q", width).shape[1]
            hidden = len(entries.shaped(f"{name}.encoder.linear1.bias", "h"))
            shapes |= _block_shapes(name, width, hidden, queries)
            total += queries
        rows = len(entries.shaped("fc.bias", "R"))
        shapes |= {"fc.weight": (rows, total), "fc.bias": (rows,)}
        return cls(entries.like(shapes))

    @classmethod
    def view(cls, backbone_weights: Mapping[str, Tensor]) -> View:
        transformer = "cls_token" in backbone_weights
        side = _TRANSFORMER if transformer else _RESNET
        return View(last_norm=not transformer, resampling=Resampling("bicubic", side=side))

    def card(self) -> dict[str, Any]:
        return {"name": self.name, "blocks": len(self.boqs), "dimension": self.dimension}

    @property
    def dimension(self) -> int:
        return self.proj_c.out_channels * self.fc.out_features

    def forward(self, features: Tensor) -> Tensor:
        x = self.norm_input(self.proj_c(features).flatten(2).transpose(1, 2))
        answers = []
        for block in self.boqs:
            x, answer = block(x)
            answers.append(answer)
        rows = self.fc(torch.cat(answers, dim=1).transpose(1, 2))  # (N, d, R)
        return functional.normalize(rows.flatten(1), dim=1)


def _count(tensors: Mapping[str, Tensor]) -> int:
    """Blocks of a state dict."""
    parts = [name.split(".") for name in tensors if name.startswith("boqs.")]
    return 1 + max((int(part[1]) for part in parts if part[1].isdecimal()), default=-1)


def _block_shapes(name: str, width: int, hidden: int, queries: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.queries": (1, queries, width)}
    for attention in ("encoder.self_attn", "self_attn", "cross_attn"):
        whole = f"{name}.{attention}"
        shapes[f"{whole}.in_proj_weight"] = (3 * width, width)
        shapes[f"{whole}.in_proj_bias"] = (3 * width,)
        shapes[f"{whole}.out_proj.weight"] = (width, width)
        shapes[f"{whole}.out_proj.bias"] = (width,)
    for layer, outputs, inputs in (("linear1", hidden, width), ("linear2", width, hidden)):
        shapes[f"{name}.encoder.{layer}.weight"] = (outputs, inputs)
        shapes[f"{name}.encoder.{layer}.bias"] = (outputs,)
    for norm in ("encoder.norm1", "encoder.norm2", "norm_q", "norm_out"):
        shapes |= _norm_shapes(f"{name}.{norm}", width)
    return shapes


def _norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _of_parts(name: str, tensors: Mapping[str, Tensor]) -> str:
    """torchvision's name of an entry of a ResNet that was cut into frozen and unfrozen layers.

    The layers of both parts in a row are the stem (convolution, normalisation), layer1, layer2 and
    so on. Another entry keeps its name.
    """
    part, _, rest = name.partition(".")
    number, _, rest = rest.partition(".")
    if part not in ("frozen_layers", "unfrozen_layers") or not number.isdecimal():
        return name
    place = int(number)
    if part == "unfrozen_layers":
        frozen = [other.split(".")[1] for other in tensors if other.startswith("frozen_layers.")]
        place += 1 + max((int(other) for other in frozen if other.isdecimal()), default=-1)
    if place > 0:
        return f"layer{place}.{rest}"
    child, _, rest = rest.partition(".")
    return f"{'conv1' if child == '0' else 'bn1'}.{rest}"
