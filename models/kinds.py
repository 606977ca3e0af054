"""The names and properties of the descriptor models, for the command line and its help.

This module does not import torch, so that `--help` is fast.
"""

from __future__ import annotations

from dataclasses import dataclass

PRECISION_NAMES = ("float32", "bfloat16", "float16")
TRAINABLE = ("netvlad", "supervlad", "gem")
"""Aggregations that training can start from."""

INSTALLED, TRAINED = "installed", "trained"
"""Backbones whose weights come with an installed package, and with vladmap."""

_PATCH_SIZES = (2, 5, 8)  # published, with the weights 0.45, 0.15, 0.40


@dataclass(frozen=True)
class Kind:
    """The properties of a model name: its aggregation, and the backbones that it may have.

    `aggregation` is a name in `models.aggregations.registry`. `backbones` are prefixes of the names
    of backbones. `ships` is INSTALLED or TRAINED where the backbone's weights come with a package
    or with vladmap, empty where the user brings a `checkpoint`. `text` is the model's line in the
    help. `learns`: its visual words can be learnt from a collection. `dimension`: the length that
    descriptors are reduced to where words are learnt, 0 for no reduction.
    """

    aggregation: str
    backbones: tuple[str, ...]
    patch_sizes: tuple[int, ...] = ()
    ships: str = ""
    dimension: int = 0
    checkpoint: str = "a NetVLAD checkpoint"
    text: str = ""
    learns: bool = True


_ANY = ("vgg16", "resnet", "efficientnet-lite0", "ghost", "dinov2")
KINDS = {
    "netvlad-lite": Kind(
        "netvlad",
        ("efficientnet-lite0",),
        _PATCH_SIZES,
        ships=TRAINED,
        dimension=1024,
        text="NetVLAD on an EfficientNet-Lite0 that was taught to see through weather, words and "
        "reduction learnt from the collection; the default",
    ),
    "netvlad-imagenet": Kind(
        "netvlad",
        ("efficientnet-lite0",),
        _PATCH_SIZES,
        ships=INSTALLED,
        dimension=1024,
        text="the same on the backbone as ImageNet left it",
    ),
    "netvlad": Kind(
        "netvlad", _ANY, _PATCH_SIZES, text="NetVLAD on VGG16, a ResNet or another backbone"
    ),
    "patch-netvlad": Kind(
        "netvlad",
        _ANY,
        _PATCH_SIZES,
        checkpoint="a Patch-NetVLAD checkpoint",
        text="the same, from a checkpoint with PCA-whitening for its patches",
    ),
    "supervlad": Kind(
        "supervlad",
        _ANY,
        checkpoint="a SuperVLAD checkpoint",
        text="SuperVLAD on DINOv2: few clusters, no centres",
    ),
    "ghost-dil-netvlad": Kind(
        "netvlad",
        ("ghost",),
        _PATCH_SIZES,
        checkpoint="a checkpoint of its backbone",
        text="NetVLAD on dilated GhostNet, a hundredth of VGG16's operations",
    ),
    "gem": Kind(
        "gem",
        _ANY,
        ships=INSTALLED,
        checkpoint="a GeM checkpoint or a backbone's state dict",
        text="generalised-mean pooling, the plain baseline",
        learns=False,
    ),
    "cosplace": Kind(
        "cosplace",
        ("vgg16", "resnet"),
        checkpoint="one of CosPlace's files, such as ResNet50_2048_cosplace.pth",
        text="generalised mean and a linear layer to 32 to 2,048 numbers (weights: MIT)",
        learns=False,
    ),
    "eigenplaces": Kind(
        "cosplace",
        ("vgg16", "resnet"),
        checkpoint="one of EigenPlaces' files, such as ResNet50_2048_eigenplaces.pth",
        text="CosPlace's network, trained to bear other viewpoints (weights: MIT)",
        learns=False,
    ),
    "boq": Kind(
        "boq",
        ("resnet", "dinov2"),
        checkpoint="one of BoQ's files, resnet50_16384.pth or dinov2_12288.pth",
        text="a bag of learnt queries on ResNet50 or DINOv2, 16,384 or 12,288 numbers "
        "(weights: MIT)",
        learns=False,
    ),
    "megaloc": Kind(
        "megaloc",
        ("dinov2",),
        checkpoint="MegaLoc's weights, model.safetensors or megaloc.torch",
        text="optimal transport on DINOv2 and a linear layer to 8,448 numbers (weights: MIT)",
        learns=False,
    ),
}
CLASSICAL = {
    "vlad": "VLAD over RootSIFT, words learnt from the collection",
    "bovw": "bags of words over RootSIFT, tf-idf, words learnt from the collection",
}
WHOLE = {
    "thumbnail": "grey pictures of 64 x 32 pixels, normalised by patch, as SeqSLAM compares "
    "them: for whole drives, see `evaluate --sequence`",
}
"""Models that are made of no weights and no words."""

MODEL_NAMES = (*KINDS, *CLASSICAL, *WHOLE)

CLUSTERS = dict.fromkeys(MODEL_NAMES, 64) | {"supervlad": 4, "bovw": 1024}

DEFAULT_DIMENSION = {name: kind.dimension for name, kind in KINDS.items()} | dict.fromkeys(
    (*CLASSICAL, *WHOLE), 0
)
"""The length to which `fit_reduction` reduces descriptors where words are learnt; 0: not at all."""

SHIPPED = (*(name for name, kind in KINDS.items() if kind.ships), *CLASSICAL, *WHOLE)
"""Models that need no checkpoint from the user."""

LEARN_NOTHING = (*(name for name, kind in KINDS.items() if not kind.learns), *WHOLE)
"""Models that depend on their weights alone, not on the collection."""

CPU_ALONE = (*CLASSICAL, *WHOLE)
"""Models that no GPU computes or decodes for."""

WITH_PATCHES = tuple(name for name, kind in KINDS.items() if kind.patch_sizes)
