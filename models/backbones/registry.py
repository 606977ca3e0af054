"""Backbones by the names of their weights, and where a model's local descriptors come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from vladmap.models.backbones import efficientnet_lite, ghost, resnet, vgg, vit
from vladmap.models.local import ConvolutionalFeatures, LocalDescriptors
from vladmap.schemas.rejects import UserError
from vladmap.weights.preprocessing import FixedSize, InputSize, Preprocessing
from vladmap.weights.reading import read_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# The ports of NetVLAD and the benchmark were trained and tested at 640 x 480; none enlarges.
_STREET = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, InputSize(smallest=32, largest=640))
# Measured: recall@1 on phone photographs is 64 % at a long side of 448 and 58 % at 640; thumbnails
# below 320 gain from being enlarged to it.
_LITE = Preprocessing(
    efficientnet_lite.MEAN, efficientnet_lite.STD, InputSize(smallest=320, largest=448)
)
# SuperVLAD's size; a transformer wants multiples of 14.
_TRANSFORMER = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, FixedSize(322, 322))


@dataclass(frozen=True)
class Backbone:
    """A network up to the feature map that is aggregated, and the weights it was built from."""

    name: str
    network: nn.Module
    weights: Mapping[str, Tensor]
    preprocessing: Preprocessing

    @property
    def channels(self) -> int:
        return self.network.channels  # type: ignore[return-value]

    def features(self, device: str = "cpu", precision: str = "float32") -> ConvolutionalFeatures:
        """Its local descriptors on `device`; the network is moved there."""
        return ConvolutionalFeatures(
            self.name, self.network, self.weights, self.preprocessing, device, precision
        )


@dataclass(frozen=True)
class _Family:
    """Networks of one kind: `mark` is a weight that no other family has."""

    mark: str
    select: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    name: Callable[[Mapping[str, Tensor]], str]
    build: Callable[[Mapping[str, Tensor]], nn.Module]
    shapes: Callable[[Mapping[str, Tensor]], dict[str, tuple[int, ...]]]
    preprocessing: Preprocessing


_FAMILIES = (
    _Family(
        mark="0.weight",
        select=lambda weights: {n: t for n, t in weights.items() if n in vgg.shapes()},
        name=lambda _: "vgg16 conv5_3",
        build=vgg.VGG16,
        shapes=lambda _: vgg.shapes(),
        preprocessing=_STREET,
    ),
    _Family(
        mark="_conv_stem.weight",
        select=efficientnet_lite.needed,
        name=lambda _: "efficientnet-lite0 block 11",
        build=efficientnet_lite.EfficientNetLite0,
        shapes=lambda _: efficientnet_lite.shapes(),
        preprocessing=_LITE,
    ),
    _Family(
        mark="conv1.weight",
        select=lambda weights: {n: t for n, t in weights.items() if n in resnet.shapes(weights)},
        name=lambda weights: f"resnet{resnet.depth(weights)} layer{resnet.layers(weights)}",
        build=resnet.ResNet,
        shapes=resnet.shapes,
        preprocessing=_STREET,
    ),
    _Family(
        mark="stem.conv.weight",
        select=lambda weights: {n: t for n, t in weights.items() if n in ghost.shapes()},
        name=lambda _: "ghost-dilated",
        build=ghost.GhostDilated,
        shapes=lambda _: ghost.shapes(),
        preprocessing=_STREET,
    ),
    _Family(
        mark="cls_token",
        select=vit.needed,
        name=lambda weights: f"dinov2 vit {weights['cls_token'].shape[-1]}",
        build=vit.ViT,
        shapes=vit.shapes,
        preprocessing=_TRANSFORMER,
    ),
)


def is_backbone(weights: Mapping[str, Tensor]) -> bool:
    """Whether the weights are those of a backbone that is known."""
    return any(family.mark in weights for family in _FAMILIES)


def backbone(
    label: str,
    weights: Mapping[str, Tensor],
    preprocessing: Preprocessing | None = None,
    prefix: str = "",
) -> Backbone:
    """The network that `weights` belong to, with its own pre-processing where none is given.

    `label` and `prefix` name the file and the weights in it for errors. Raises UserError where the
    network is unknown, or a weight is missing or of another shape.
    """
    family = next((family for family in _FAMILIES if family.mark in weights), None)
    if family is None:
        first = ", ".join(prefix + name for name in list(weights)[:3]) or "nothing"
        raise UserError(
            f"{label} holds no backbone that is known ({first}): expected VGG16, a ResNet, "
            "EfficientNet-Lite0, GhostNet or DINOv2"
        )
    for name, shape in family.shapes(weights).items():
        if name not in weights:
            raise UserError(
                f"{label} lacks {prefix}{name}: the checkpoint is incomplete or of another network"
            )
        if tuple(weights[name].shape) != shape:
            raise UserError(
                f"{label}: {prefix}{name} has shape {tuple(weights[name].shape)}, expected {shape}"
            )
    own = {name: tensor.float().contiguous() for name, tensor in family.select(weights).items()}
    return Backbone(family.name(own), family.build(own), own, preprocessing or family.preprocessing)


def installed() -> Backbone:
    """EfficientNet-Lite0, whose trained weights come with an installed package."""
    path = efficientnet_lite.pretrained_path()
    return backbone(str(path), read_weights(path).tensors)


@dataclass(frozen=True)
class LocalSource:
    """Local descriptors; `own` is the backbone where it came with the user's file."""

    features: LocalDescriptors
    own: Backbone | None = None
