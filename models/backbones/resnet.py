"""ResNets up to layer3 or layer4, as backbones of local descriptors.

He et al., "Deep Residual Learning" (CVPR 2016), with torchvision's parameter names and its stride
in the 3x3 convolution of a bottleneck. The variant is read off the weights.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from vladmap.models.backbones.folding import fold, norm_shapes, unfold
from vladmap.schemas.rejects import UserError

# (convolutions in a block, blocks in layer3) of the variants that people hold
_DEPTHS = {(2, 2): 18, (2, 6): 34, (3, 6): 50, (3, 23): 101, (3, 36): 152}
_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_WIDTHS = (64, 128, 256, 512)


def depth(state: Mapping[str, Tensor]) -> int:
    """18, 34, 50, 101 or 152, by the names in a state dict; UserError where it is none of them."""
    convolutions = 3 if any(name.endswith("conv3.weight") for name in state) else 2
    in_layer3 = {name.split(".")[1] for name in state if name.startswith("layer3.")}
    variant = _DEPTHS.get((convolutions, len(in_layer3)))
    if variant is None:
        raise UserError(
            f"a ResNet with {len(in_layer3)} blocks in layer3 is none that is known: "
            "expected ResNet18, 34, 50, 101 or 152"
        )
    return variant


def layers(state: Mapping[str, Tensor]) -> int:
    """How many of layer1 to layer4 the weights go up to: 4 where any of layer4 is there, else 3."""
    return 4 if any(name.startswith("layer4.") for name in state) else 3


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shape of every weight that the network computes with, by torchvision's names."""
    by_name = {"conv1.weight": (64, 3, 7, 7)} | norm_shapes("bn1", 64)
    for name, convs, shortcut in _blocks(depth(state), layers(state)):
        for i, (inputs, outputs, kernel, _) in enumerate(convs, start=1):
            by_name[f"{name}.conv{i}.weight"] = (outputs, inputs, kernel, kernel)
            by_name |= norm_shapes(f"{name}.bn{i}", outputs)
        if shortcut:
            inputs, outputs, _ = shortcut
            by_name[f"{name}.downsample.0.weight"] = (outputs, inputs, 1, 1)
            by_name |= norm_shapes(f"{name}.downsample.1", outputs)
    return by_name


_CHILDREN = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


def named_children(state: Mapping[str, Tensor]) -> dict[str, str]:
    """torchvision's names of entries whose first part is the number of a ResNet's child.

    That is how entries are called where a ResNet was taken apart into an `nn.Sequential`. Other
    networks keep their names.
    """
    if not any(name.startswith("4.0.conv1") for name in state):
        return {name: name for name in state}
    names = {}
    for name in state:
        number, _, rest = name.partition(".")
        known = number.isdecimal() and int(number) < len(_CHILDREN)
        names[name] = f"{_CHILDREN[int(number)]}.{rest}" if known else name
    return names


_Conv = tuple[int, int, int, int]  # channels in and out, kernel, stride


def _blocks(depth: int, layers: int) -> list[tuple[str, list[_Conv], tuple[int, int, int] | None]]:
    """(name, convolutions, shortcut's channels in and out and stride) of every block."""
    blocks = []
    bottleneck = depth >= 50
    inputs = 64
    for layer, (width, count) in enumerate(zip(_WIDTHS, _BLOCKS[depth], strict=True), start=1):
        if layer > layers:
            break
        outputs = 4 * width if bottleneck else width
        for block in range(count):
            stride = 2 if block == 0 and layer > 1 else 1
            if bottleneck:
                convs = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
            else:
                convs = [(inputs, width, 3, stride), (width, width, 3, 1)]
            shortcut = (inputs, outputs, stride) if stride > 1 or inputs != outputs else None
            blocks.append((f"layer{layer}.{block}", convs, shortcut))
            inputs = outputs
    return blocks


class _Block(nn.Module):
    def __init__(self, convs: list[_Conv], shortcut: tuple[int, int, int] | None) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
            for inputs, outputs, kernel, stride in convs
        )
        self.shortcut = None
        if shortcut:
            inputs, outputs, stride = shortcut
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv in self.convs[:-1]:
            y = functional.relu(conv(y), inplace=True)
        y = self.convs[-1](y)
        return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)), inplace=True)


class ResNet(nn.Module):
    """(N, 3, H, W) -> (N, `channels`, H / 16, W / 16), after layer4 H / 32; sides rounded up.

    Batch normalisation is folded into the convolutions, so training does not change its statistics.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """`state` holds the names of `shapes`; raises KeyError or RuntimeError if not."""
        super().__init__()
        self._variant = depth(state), layers(state)
        blocks = _blocks(*self._variant)
        self.channels = blocks[-1][1][-1][1]
        self.stride = 4 * 2 ** (layers(state) - 1)
        self.stem = nn.Conv2d(3, 64, 7, 2, padding=3)
        self.blocks = nn.Sequential(*(_Block(convs, shortcut) for _, convs, shortcut in blocks))
        folded: dict[str, Tensor] = {}
        for conv, norm, target in _pairs(*self._variant):
            folded |= fold(state, conv, norm, target)
        self.load_state_dict(folded)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x), inplace=True)
        return self.blocks(functional.max_pool2d(x, 3, 2, padding=1))

    def stages(self) -> list[nn.Module]:
        """The stem and the blocks, in the order in which an image goes through them."""
        return [self.stem, *self.blocks]

    def through(self, x: Tensor, first: int = 0, end: int | None = None) -> Tensor:
        """The output of the stages `first` to `end`; all stages together are the network."""
        for stage in self.stages()[first:end]:
            x = stage(x)
            if stage is self.stem:
                x = functional.max_pool2d(functional.relu(x, inplace=True), 3, 2, padding=1)
        return x

    def unfolded(self) -> dict[str, Tensor]:
        """A state dict from which this network can be built again."""
        state: dict[str, Tensor] = {}
        for conv, norm, target in _pairs(*self._variant):
            layer = self.get_submodule(target)
            state |= unfold(layer.weight, layer.bias, conv, norm)  # type: ignore[arg-type]
        return state


def _pairs(depth: int, layers: int) -> list[tuple[str, str, str]]:
    """Names of (convolution, its normalisation, the folded layer that replaces both)."""
    pairs = [("conv1", "bn1", "stem")]
    for place, (name, convs, shortcut) in enumerate(_blocks(depth, layers)):
        for i in range(len(convs)):
            target = f"blocks.{place}.convs.{i}"
            pairs.append((f"{name}.conv{i + 1}", f"{name}.bn{i + 1}", target))
        if shortcut:
            target = f"blocks.{place}.shortcut"
            pairs.append((f"{name}.downsample.0", f"{name}.downsample.1", target))
    return pairs
