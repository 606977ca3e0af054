"""Backbones by the names of their weights, and where a model's local descriptors come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from vladmap.models.backbones import efficientnet_lite, ghost, resnet, vgg, vit
from vladmap.models.backbones.view import WHOLE_MAP, View
from vladmap.models.local import ConvolutionalFeatures, LocalDescriptors
from vladmap.schemas.rejects import UserError
from vladmap.weights.entries import Entries
from vladmap.weights.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    FixedSize,
    InputSize,
    Preprocessing,
)
from vladmap.weights.reading import read_weights

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
    """A network up to the feature map that is aggregated, and the weights it was built from.

    The network outputs what `view` specifies.
    """

    name: str
    network: nn.Module
    weights: Mapping[str, Tensor]
    preprocessing: Preprocessing
    view: View = WHOLE_MAP

    @property
    def channels(self) -> int:
        return self.network.channels  # type: ignore[return-value]

    def features(self, device: str = "cpu", precision: str = "float32") -> ConvolutionalFeatures:
        """Its local descriptors on `device`; the network is moved there."""
        return ConvolutionalFeatures(
            self.name,
            self.network,
            self.weights,
            self.preprocessing,
            device,
            precision,
            self.view.resampling,
        )


Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class _Family:
    """Networks of one kind: `mark` is a weight that no other family has.

    A `View` matters to a transformer alone, which has a class token and a last normalisation.
    """

    mark: str
    name: Callable[[Weights], str]
    build: Callable[[Weights, View], nn.Module]
    shapes: Callable[[Weights, View], dict[str, tuple[int, ...]]]
    preprocessing: Preprocessing
    class_token: bool = False


_FAMILIES = (
    _Family(
        mark="0.weight",
        name=lambda _: "vgg16 conv5_3",
        build=lambda weights, _: vgg.VGG16(weights),
        shapes=lambda *_: vgg.shapes(),
        preprocessing=_STREET,
    ),
    _Family(
        mark="_conv_stem.weight",
        name=lambda _: "efficientnet-lite0 block 11",
        build=lambda weights, _: efficientnet_lite.EfficientNetLite0(weights),
        shapes=lambda *_: efficientnet_lite.shapes(),
        preprocessing=_LITE,
    ),
    _Family(
        mark="conv1.weight",
        name=lambda weights: f"resnet{resnet.depth(weights)} layer{resnet.layers(weights)}",
        build=lambda weights, _: resnet.ResNet(weights),
        shapes=lambda weights, _: resnet.shapes(weights),
        preprocessing=_STREET,
    ),
    _Family(
        mark="stem.conv.weight",
        name=lambda _: "ghost-dilated",
        build=lambda weights, _: ghost.GhostDilated(weights),
        shapes=lambda *_: ghost.shapes(),
        preprocessing=_STREET,
    ),
    _Family(
        mark="cls_token",
        name=lambda weights: f"dinov2 vit {weights['cls_token'].shape[-1]}",
        build=vit.ViT,
        shapes=lambda weights, view: vit.shapes(weights, view.last_norm),
        preprocessing=_TRANSFORMER,
        class_token=True,
    ),
)


def is_backbone(weights: Mapping[str, Tensor]) -> bool:
    """Whether the weights are those of a known backbone."""
    return any(family.mark in weights for family in _FAMILIES)


def backbone(label: str, weights: Weights) -> Backbone:
    """The network that `weights` belong to; `label` names them in errors. See `backbone_of`."""
    return backbone_of(Entries(label, weights))


def backbone_of(
    entries: Entries,
    preprocessing: Preprocessing | None = None,
    view: View = WHOLE_MAP,
) -> Backbone:
    """The network that the weights `entries` belong to; its own pre-processing where none is given.

    Raises UserError where the network is unknown or has no class token for a `view` that asks for
    it, or a weight is missing or of another shape.
    """
    label, weights = entries.label, entries.tensors
    family = next((family for family in _FAMILIES if family.mark in weights), None)
    if family is None:
        first = ", ".join(map(entries.full_name, list(weights)[:3])) or "nothing"
        raise UserError(
            f"{label} holds no backbone that is known ({first}): expected VGG16, a ResNet, "
            "EfficientNet-Lite0, GhostNet or DINOv2"
        )
    shapes = family.shapes(weights, view)
    own = {name: tensor.contiguous() for name, tensor in entries.like(shapes).items()}
    name = family.name(own)
    if view.class_token and not family.class_token:
        raise UserError(f"{label} holds {name}, which has no class token: expected DINOv2")
    return Backbone(
        view.named(name), family.build(own, view), own, preprocessing or family.preprocessing, view
    )


def installed() -> Backbone:
    """EfficientNet-Lite0, whose trained weights come with an installed package."""
    path = efficientnet_lite.pretrained_path()
    return backbone(str(path), read_weights(path).tensors)


@dataclass(frozen=True)
class LocalSource:
    """Local descriptors; `own` is the backbone where it came with the user's file."""

    features: LocalDescriptors
    own: Backbone | None = None
