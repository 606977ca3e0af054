"""Descriptor models by name."""

from __future__ import annotations

from typing import cast

import torch

from models.backbones import MODEL_NAMES, local_descriptors
from models.base import DescriptorModel
from models.checkpoints import (
    CheckpointSource,
    WeightFile,
    is_vocabulary,
    netvlad_weights,
    read_weights,
)
from models.local import PRECISIONS, ConvolutionalFeatures, torch_device
from models.netvlad import NetVLAD, NetVladModel
from models.vlad import VladModel
from models.vocabulary import parse
from schemas.rejects import UserError

# Of centres that nobody trained. The softmax is all but VLAD's hard assignment, which measured best
# (recall@1 on 303 pairs: 57 % at alpha 10, 66 at 30, 69 at 100, 68 hard), and yet continuous, so
# that rounding in the backbone cannot move a location from one cluster to another at a stroke.
# The floor keeps the clusters that hold next to nothing small, as they are in VLAD.
_ALPHA = 100.0
_FLOOR = 1.0


def load_model(
    name: str,
    checkpoint: CheckpointSource | None = None,
    device: str = "cpu",
    precision: str = "float32",
) -> DescriptorModel:
    """The model `name`, one of MODEL_NAMES, ready to describe images.

    `checkpoint` is a local path or a file's bytes: a vocabulary learnt from a collection (any
    model) or, for `netvlad`, a VGG16-NetVLAD checkpoint. `device` is `cpu` or `cuda`, `precision`
    `float32`, `bfloat16` or `float16` of the backbone. Raises UserError for anything that the user
    can mend: an unknown name, a wrong or damaged file, a GPU that is not there.
    """
    if name not in MODEL_NAMES:
        raise UserError(f"unknown model {name!r}: choose one of {', '.join(MODEL_NAMES)}")
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    torch_device(device)
    if checkpoint is None:
        raise UserError(
            f"the model {name} needs a checkpoint: a vocabulary learnt from the collection"
            + (" or a pytorch-NetVlad checkpoint" if name == "netvlad" else "")
        )
    file = read_weights(checkpoint)
    if is_vocabulary(file):
        return _from_vocabulary(name, file, device, precision)
    if name != "netvlad":
        raise UserError(f"{file.label} is not a vocabulary for {name}")
    return _from_netvlad(name, file, device, precision)


def _from_vocabulary(name: str, file: WeightFile, device: str, precision: str) -> DescriptorModel:
    vocabulary = parse(file)
    if vocabulary.model != name:
        raise UserError(f"{file.label} is a vocabulary for {vocabulary.model}, not for {name}")
    source = local_descriptors(name, file, device, precision)
    if vocabulary.backbone_digest != source.features.digest:
        raise UserError(
            f"{file.label} was learnt with other weights of the backbone than those installed: "
            "learn it again"
        )
    if vocabulary.centres.shape[1] != source.features.dimension:
        raise UserError(
            f"{file.label} has centres of {vocabulary.centres.shape[1]} numbers, "
            f"{name} needs {source.features.dimension}"
        )
    features = source.features
    if isinstance(features, ConvolutionalFeatures):
        aggregation = NetVLAD.v2(torch.from_numpy(vocabulary.centres), _ALPHA, _FLOOR)
        return NetVladModel(name, features, aggregation, vocabulary.whitening)
    return VladModel(name, features, vocabulary.centres, vocabulary.whitening)


def _from_netvlad(name: str, file: WeightFile, device: str, precision: str) -> DescriptorModel:
    weights = netvlad_weights(file)
    if weights.centres is None or weights.assignment is None:
        raise UserError(
            f"{file.label} holds VGG16 alone: learn NetVLAD's centres from the collection first"
        )
    features = local_descriptors(name, file, device, precision).features
    aggregation = NetVLAD(weights.centres, weights.assignment, weights.bias)
    return NetVladModel(name, cast(ConvolutionalFeatures, features), aggregation, weights.whitening)


def is_complete(name: str, checkpoint: CheckpointSource | None) -> bool:
    """Whether `checkpoint` alone makes the model: it has its visual words in it.

    Raises UserError where it is no checkpoint for `name`.
    """
    if checkpoint is None:
        return False
    file = read_weights(checkpoint)
    if is_vocabulary(file):
        return True
    if name != "netvlad":
        raise UserError(f"{file.label} is not a vocabulary for {name}")
    return netvlad_weights(file).centres is not None
