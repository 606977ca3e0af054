"""The backbone of Ghost-dil-NetVLAD: Ghost modules with dilated convolutions.

Han et al., "GhostNet: More Features from Cheap Operations" (CVPR 2020); "Ghost-dil-NetVLAD"
(arXiv 2112.11679) dilates the cheap operation. The latter's layer table is not public. This one is
GhostNet's, with dilation in place of strides after stride 16, and stays within the published budget
of a hundredth of VGG16-NetVLAD's operations and a fifth of its parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from vladmap.models.backbones.folding import NORM_PARTS, fold, norm_shapes, unfold

CHANNELS = 512
STRIDE = 16
_STEM = 16

# kernel of the strided convolution, channels within and out, stride, dilation of the Ghost modules
_BOTTLENECKS = (
    (3, 16, 16, 1, 1),
    (3, 48, 24, 2, 1),
    (3, 72, 24, 1, 1),
    (5, 72, 40, 2, 1),
    (5, 120, 40, 1, 1),
    (3, 240, 80, 2, 1),
    (3, 200, 80, 1, 2),
    (3, 184, 80, 1, 2),
    (3, 480, 112, 1, 2),
    (3, 672, 112, 1, 4),
    (5, 672, 160, 1, 2),
    (3, 960, 160, 1, 4),
)


class _Ghost(nn.Module):
    """Half of the channels by a 1x1 convolution, the other half by a cheap depth-wise one."""

    def __init__(self, inputs: int, outputs: int, dilation: int, active: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.active = active
        self.primary = nn.Conv2d(inputs, half, 1)
        self.cheap = nn.Conv2d(half, half, 3, padding=dilation, dilation=dilation, groups=half)

    def forward(self, x: Tensor) -> Tensor:
        primary = self._activated(self.primary(x))
        return torch.cat([primary, self._activated(self.cheap(primary))], dim=1)

    def _activated(self, x: Tensor) -> Tensor:
        return functional.relu(x, inplace=True) if self.active else x


class _Bottleneck(nn.Module):
    """Ghost module to expand, a strided convolution where one is due, Ghost module to project."""

    def __init__(
        self, kernel: int, inputs: int, hidden: int, outputs: int, stride: int, dilation: int
    ) -> None:
        super().__init__()
        self.expand = _Ghost(inputs, hidden, dilation, active=True)
        self.strided = None
        if stride > 1:
            self.strided = _depthwise(hidden, kernel, stride)
        self.project = _Ghost(hidden, outputs, dilation, active=False)
        self.shortcut = None
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                _depthwise(inputs, kernel, stride), nn.Conv2d(inputs, outputs, 1)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(x)
        if self.strided is not None:
            y = self.strided(y)
        return self.project(y) + (x if self.shortcut is None else self.shortcut(x))


def _depthwise(channels: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel, stride, padding=kernel // 2, groups=channels)


def _layers() -> nn.ModuleDict:
    blocks = []
    inputs = _STEM
    for kernel, hidden, outputs, stride, dilation in _BOTTLENECKS:
        blocks.append(_Bottleneck(kernel, inputs, hidden, outputs, stride, dilation))
        inputs = outputs
    return nn.ModuleDict(
        {
            "stem": nn.Conv2d(3, _STEM, 3, 2, padding=1),
            "blocks": nn.Sequential(*blocks),
            "head": _Ghost(inputs, CHANNELS, 2, active=False),
        }
    )


@cache
def _convolutions() -> tuple[tuple[str, nn.Conv2d], ...]:
    with torch.device("meta"):
        layers = _layers()
    return tuple(
        (name, module) for name, module in layers.named_modules() if isinstance(module, nn.Conv2d)
    )


@cache
def shapes() -> dict[str, tuple[int, ...]]:
    """Shape of every entry of a state dict: `<layer>.conv.weight` and its `<layer>.norm.*`."""
    by_name: dict[str, tuple[int, ...]] = {}
    for name, conv in _convolutions():
        by_name[f"{name}.conv.weight"] = tuple(conv.weight.shape)
        by_name |= norm_shapes(f"{name}.norm", conv.out_channels)
    return by_name


def initial_state(seed: int) -> dict[str, Tensor]:
    """Weights to start training from (He et al., ICCV 2015), the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, conv in _convolutions():
        shape = tuple(conv.weight.shape)
        deviation = (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        state[f"{name}.conv.weight"] = deviation * torch.randn(shape, generator=generator)
        for part in NORM_PARTS:
            one = part in ("weight", "running_var")
            state[f"{name}.norm.{part}"] = torch.full((conv.out_channels,), float(one))
    return state


class GhostDilated(nn.Module):
    """(N, 3, H, W) -> (N, 512, ceil(H / 16), ceil(W / 16)).

    Batch normalisation is folded into the convolutions, so training does not change its statistics.
    """

    channels = CHANNELS
    stride = STRIDE

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """`state` holds the names of `shapes`; raises KeyError or RuntimeError if not."""
        super().__init__()
        self.layers = _layers()
        folded: dict[str, Tensor] = {}
        for name, _ in _convolutions():
            folded |= fold(state, f"{name}.conv", f"{name}.norm", name)
        self.layers.load_state_dict(folded)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.layers["stem"](x), inplace=True)
        return self.layers["head"](self.layers["blocks"](x))

    def stages(self) -> list[nn.Module]:
        """Stem, bottlenecks and head, in the order in which an image goes through them."""
        return [self.layers["stem"], *self.layers["blocks"], self.layers["head"]]  # type: ignore[misc]

    def through(self, x: Tensor, first: int = 0, end: int | None = None) -> Tensor:
        """The output of the stages `first` to `end`; all stages together are the network."""
        for stage in self.stages()[first:end]:
            x = stage(x)
            if stage is self.layers["stem"]:
                x = functional.relu(x, inplace=True)
        return x

    def unfolded(self) -> dict[str, Tensor]:
        """A state dict from which this network can be built again."""
        state: dict[str, Tensor] = {}
        for name, _ in _convolutions():
            layer = self.layers.get_submodule(name)
            state |= unfold(layer.weight, layer.bias, f"{name}.conv", f"{name}.norm")  # type: ignore[arg-type]
        return state
