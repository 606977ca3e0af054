"""Which local descriptors a model of a given name aggregates, and at which image size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from models.base import InputSize
from models.checkpoints import (
    BACKBONE_PREFIX,
    CheckpointSource,
    WeightFile,
    is_vocabulary,
    netvlad_weights,
    read_weights,
    vgg_backbone,
)
from models.efficientnet_lite import EfficientNetLite0, needed, pretrained_path
from models.local import ConvolutionalFeatures, LocalDescriptors, RootSiftFeatures
from models.vgg import VGG16
from schemas.rejects import UserError

MODEL_NAMES = ("netvlad-lite", "netvlad", "vlad")

# Measured: recall@1 on phone photographs is 64 % at a long side of 448 and 58 % at 640; thumbnails
# below 320 gain from being enlarged to it.
_LITE_SIZE = InputSize(smallest=320, largest=448)
_VGG_SIZE = InputSize(smallest=320, largest=640)  # trained on 640 x 480


@dataclass(frozen=True)
class LocalSource:
    """Local descriptors; `own_weights` are those that came with the user's file, if any."""

    features: LocalDescriptors
    own_weights: Mapping[str, Tensor] = field(default_factory=dict)


def local_descriptors(
    model_name: str,
    checkpoint: CheckpointSource | WeightFile | None = None,
    device: str = "cpu",
    precision: str = "float32",
) -> LocalSource:
    """The source of `model_name`'s local descriptors.

    Only `netvlad` takes them from `checkpoint`: a VGG16 state dict, a VGG16-NetVLAD checkpoint or a
    vocabulary of its own. Raises UserError for an unknown name, unsound weights or a missing GPU.
    """
    if model_name == "vlad":
        return LocalSource(RootSiftFeatures())
    if model_name == "netvlad-lite":
        weights = needed(read_weights(pretrained_path()).tensors)
        lite = EfficientNetLite0(weights)
        return LocalSource(
            ConvolutionalFeatures(
                "efficientnet-lite0 block 11", lite, weights, _LITE_SIZE, device, precision
            )
        )
    if model_name == "netvlad":
        if checkpoint is None:
            raise UserError(
                "the model netvlad needs a checkpoint: torchvision's VGG16 state dict or a "
                "pytorch-NetVlad checkpoint"
            )
        file = checkpoint if isinstance(checkpoint, WeightFile) else read_weights(checkpoint)
        if is_vocabulary(file):
            own = vgg_backbone(file.label, file.tensors, BACKBONE_PREFIX)
        else:
            own = dict(netvlad_weights(file).backbone)
        return LocalSource(
            ConvolutionalFeatures("vgg16 conv5_3", VGG16(own), own, _VGG_SIZE, device, precision),
            own,
        )
    raise UserError(f"unknown model {model_name!r}: choose one of {', '.join(MODEL_NAMES)}")
