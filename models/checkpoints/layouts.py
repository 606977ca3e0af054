"""Recognises the network in a file of weights, in all layouts below, by the names of its tensors.

| file | recognised by |
|---|---|
| pytorch-NetVlad and Patch-NetVLAD `.pth.tar` | `encoder.*`, `pool.*`, `WPCA.0.*` |
| hloc and MatConvNet `VGG16-NetVLAD-*.mat` | `layers.N.weights.M` |
| OpenIBL `vgg16_netvlad.pth` | `base_model.*`, `net_vlad.*`, `pca_layer.*` |
| deep visual geo-localization benchmark, SuperVLAD `.pth` | `backbone.*`, `aggregation.*` |
| torchvision's VGG16 and ResNets, DINOv2 | a backbone alone |
| vladmap's own safetensors | the card inside |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from vladmap.models.aggregations.base import Aggregation, Published
from vladmap.models.aggregations.gem import GeM
from vladmap.models.aggregations.netvlad import NetVLAD
from vladmap.models.aggregations.registry import AGGREGATIONS
from vladmap.models.aggregations.supervlad import SuperVLAD
from vladmap.models.backbones.registry import Backbone, backbone_of, is_backbone
from vladmap.models.backbones.resnet import named_children
from vladmap.models.whitening import Whitening, whitening_arrays
from vladmap.schemas import SCHEMA_VERSION
from vladmap.schemas.rejects import UserError
from vladmap.weights.entries import Entries
from vladmap.weights.preprocessing import InputSize, Preprocessing
from vladmap.weights.reading import METADATA_KEY, WeightFile, preprocessing_of

MODEL = "model"
"""The `kind` in the metadata of a model in vladmap's own format."""

_AS_GIVEN = 32  # published pipelines do not enlarge photographs; below this networks need it
_OPENIBL_MEAN = (0.48501960784313836, 0.4579568627450961, 0.4076039215686255)


@dataclass(frozen=True)
class Network:
    """A backbone and the layers after it, as far as the file has them.

    `aggregation` is None where the file holds a backbone alone; `format` names the layout.
    """

    format: str
    backbone: Backbone
    aggregation: Aggregation | None = None
    whitening: Whitening | None = None


def network(file: WeightFile) -> Network:
    """The network of a file; `module.` prefixes from multi-GPU training are removed.

    Raises UserError where the layout is unknown, entries are missing, or their shapes contradict
    each other.
    """
    tensors = {_without_module(name): tensor for name, tensor in file.tensors.items()}
    entries = Entries(file.label, tensors)
    if file.metadata.get("kind") == MODEL:
        return _own(entries, file.metadata)
    for aggregation in AGGREGATIONS.values():
        if aggregation.published is not None and aggregation.published.recognises(tensors):
            return _published(entries, aggregation, aggregation.published)
    for recognised, sort_out in _LAYOUTS:
        if recognised(tensors):
            return sort_out(entries)
    first = ", ".join(list(tensors)[:3]) or "nothing"
    of_one = [each.published.format for each in AGGREGATIONS.values() if each.published]
    raise UserError(
        f"{file.label} is no checkpoint that is known (it holds {first}, ...): expected "
        "pytorch-NetVlad, Patch-NetVLAD, hloc's .mat, OpenIBL, the deep visual geo-localization "
        f"benchmark, {', '.join([*of_one, ''])}"
        "or a state dict of VGG16, ResNet, DINOv2 or EfficientNet-Lite0"
    )


def to_bytes(net: Network, source: bytes, half: bool = False) -> bytes:
    """The network as safetensors with a model card, which `network` reads back.

    `half` stores the whitening, the largest part of a small model, in half precision. `source` are
    the bytes of the original file; their SHA-256 is in the card.
    """
    tensors = {f"backbone.{name}": tensor for name, tensor in net.backbone.weights.items()}
    if net.aggregation is not None:
        state = net.aggregation.state_dict()
        tensors |= {f"aggregation.{name}": tensor for name, tensor in state.items()}
    arrays = whitening_arrays(net.whitening)
    dtype = torch.float16 if half else torch.float32
    tensors |= {name: torch.from_numpy(array).to(dtype) for name, array in arrays.items()}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    metadata = {
        "kind": MODEL,
        "schema_version": SCHEMA_VERSION,
        "source": {"sha256": hashlib.sha256(source).hexdigest()},
        **card(net),
    }
    return to_safetensors(tensors, {METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def card(net: Network) -> dict[str, Any]:
    """A summary of a checkpoint for people: layout, backbone, aggregation, K, D, PCA."""
    facts: dict[str, Any] = {"format": net.format, "backbone": net.backbone.name}
    if net.aggregation is not None:
        facts["aggregation"] = net.aggregation.card()
    facts["pca"] = None if net.whitening is None else len(net.whitening.bias)
    facts["preprocessing"] = asdict(net.backbone.preprocessing)
    return facts


def _own(entries: Entries, metadata: Mapping[str, Any]) -> Network:
    try:
        return _of_card(entries, metadata)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(f"{entries.label} has a damaged model card: {error!r}") from error


def _of_card(entries: Entries, metadata: Mapping[str, Any]) -> Network:
    label = entries.label
    if metadata["schema_version"] > SCHEMA_VERSION:
        raise UserError(f"{label} was written by a newer vladmap: update vladmap")
    settings, preprocessing = metadata.get("aggregation"), preprocessing_of(label, metadata)
    weights = entries.under("backbone.")
    if settings is None:
        return Network(metadata["format"], backbone_of(weights, preprocessing))
    kind = AGGREGATIONS.get(settings["name"])
    if kind is None:
        raise UserError(
            f"{label} names an unknown aggregation {settings['name']!r} in its model card"
        )
    own = backbone_of(weights, preprocessing, kind.view(weights.tensors))
    aggregation = kind.from_tensors(entries.under("aggregation."), own.channels, settings)
    whitening = _whitening(entries, "whitening", aggregation.dimension)
    return Network(metadata["format"], own, aggregation, whitening)


def _published(entries: Entries, kind: type[Aggregation], layout: Published) -> Network:
    """The network of a checkpoint in the `layout` that is specific to the aggregation `kind`."""
    weights = kind.backbone_entries(entries)
    own = backbone_of(weights, layout.preprocessing, kind.view(weights.tensors))
    aggregation = kind.from_tensors(entries.under(layout.aggregation), own.channels, {})
    return Network(layout.format, own, aggregation)


def _pytorch_netvlad(entries: Entries) -> Network:
    own = backbone_of(entries.under("encoder."))
    aggregation = _netvlad(entries.under("pool."), own)
    whitening = _whitening(entries, "WPCA.0", aggregation.dimension)
    name = "pytorch-NetVlad" if whitening is None else "Patch-NetVLAD"
    return Network(name, own, aggregation, whitening)


def _openibl(entries: Entries) -> Network:
    preprocessing = Preprocessing(_OPENIBL_MEAN, (1 / 255,) * 3, InputSize(_AS_GIVEN, 640))
    nested = "base_model.base.0.weight" in entries
    own = backbone_of(entries.under("base_model.base." if nested else "base_model."), preprocessing)
    aggregation = _netvlad(entries.under("net_vlad."), own)
    whitening = _whitening(entries, "pca_layer", aggregation.dimension)
    return Network("OpenIBL", own, aggregation, whitening)


def _geo_localization_benchmark(entries: Entries) -> Network:
    label = entries.label
    if any(name.startswith("encoder.") for name in entries.tensors):
        raise UserError(
            f"{label} ends in a cross-image encoder, which makes a descriptor depend on the other "
            "images of its batch: use a checkpoint that was trained without it"
        )
    layers = entries.under("backbone.")
    own = backbone_of(layers.renamed(named_children(layers.tensors)))
    head = entries.under("aggregation.")
    if "conv.weight" in head and "centroids" not in head:
        assignment = head.shaped("conv.weight", "K", own.channels, 1, 1).flatten(1)
        # Published with 4 clusters and 1 ghost, and with 1 cluster and 2 ghosts.
        ghosts = 2 if len(assignment) == 3 else 1
        if len(assignment) <= ghosts:
            raise UserError(f"{label}: aggregation.conv.weight leaves no cluster beside its ghost")
        return Network("SuperVLAD", own, SuperVLAD(assignment, ghosts))
    name = "deep visual geo-localization benchmark"
    if "conv.weight" in head or "centroids" in head:
        return Network(name, own, _netvlad(head, own))
    powers = sorted(key for key in head.tensors if key == "p" or key.endswith(".p"))
    if not powers:
        raise UserError(f"{label} holds neither NetVLAD nor GeM under aggregation.*")
    # In Sequential(L2Norm, GeM, ...) GeM comes second: locals are normalised before pooling.
    gem = GeM(own.channels, head.number(powers[0]), powers[0].removesuffix(".p").endswith("1"))
    # A fully connected layer followed by a normalisation computes the same as a whitening.
    return Network(name, own, gem, _whitening(entries, "aggregation.1", own.channels))


def _matconvnet(entries: Entries) -> Network:
    mean = entries["averageImage"].float() / 255
    preprocessing = Preprocessing(tuple(mean.tolist()), (1 / 255,) * 3, InputSize(_AS_GIVEN, 1024))
    layers = {}
    # MatConvNet numbers layers as torchvision does up to conv5_3; its kernels are H x W x in x out.
    for number in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28):
        kernel = entries[f"layers.{number}.weights.0"]
        if kernel.ndim != 4:
            raise UserError(f"{entries.label}: layer {number} is no convolution of VGG16")
        layers[f"{number}.weight"] = kernel.permute(3, 2, 0, 1)
        layers[f"{number}.bias"] = entries[f"layers.{number}.weights.1"].flatten()
    own = backbone_of(Entries(entries.label, layers), preprocessing)
    channels = own.channels
    assignment = entries.shaped("layers.30.weights.0", channels, "K").float()
    clusters = assignment.shape[1]
    # Stored with opposite sign.
    centres = -entries.shaped("layers.30.weights.1", channels, clusters).float()
    aggregation = NetVLAD(centres.T.contiguous(), assignment.T.contiguous(), None)
    whitening = None
    if "layers.33.weights.0" in entries:
        weight = entries["layers.33.weights.0"].float().flatten(0, -2)
        bias = entries["layers.33.weights.1"].float().flatten()
        if tuple(weight.shape) != (clusters * channels, len(bias)):
            raise UserError(
                f"{entries.label}: layers.33.weights.0 has shape {tuple(weight.shape)}, "
                f"expected {(clusters * channels, len(bias))}"
            )
        # MatConvNet flattens descriptors with the cluster as the fastest index; vladmap with the
        # dimension.
        by_cluster = weight.view(channels, clusters, -1).permute(2, 1, 0).flatten(1)
        whitening = Whitening(by_cluster.contiguous().numpy(), bias.numpy())
    return Network("hloc", own, aggregation, whitening)


def _torchvision(entries: Entries) -> Network:
    return Network("torchvision", backbone_of(entries.under("features.")))


def _backbone_alone(entries: Entries) -> Network:
    # Up to layer3, at stride 16, as the deep visual geo-localization benchmark prefers.
    tensors = {n: t for n, t in entries.tensors.items() if not n.startswith("layer4.")}
    return Network("state dict", backbone_of(Entries(entries.label, tensors)))


_LAYOUTS: tuple[
    tuple[Callable[[Mapping[str, Tensor]], bool], Callable[[Entries], Network]],
    ...,
] = (
    (
        lambda t: "pool.centroids" in t or "encoder.0.weight" in t,
        _pytorch_netvlad,
    ),
    (lambda t: "layers.30.weights.0" in t or "layers.0.weights.0" in t, _matconvnet),
    (lambda t: "net_vlad.centroids" in t or "net_vlad.conv.weight" in t, _openibl),
    (
        lambda t: (
            any(name.startswith("aggregation.") for name in t)
            and any(name.startswith("backbone.") for name in t)
        ),
        _geo_localization_benchmark,
    ),
    (lambda t: "features.0.weight" in t, _torchvision),
    (is_backbone, _backbone_alone),
)


def _netvlad(entries: Entries, own: Backbone) -> NetVLAD:
    """NetVLAD from entries that are named as in its PyTorch ports."""
    centres = entries.shaped("centroids", "K", own.channels)
    assignment = entries.shaped("conv.weight", len(centres), own.channels, 1, 1)
    bias = entries.shaped("conv.bias", len(centres)) if "conv.bias" in entries else None
    return NetVLAD(centres, assignment.flatten(1), bias)


def _whitening(entries: Entries, name: str, inputs: int) -> Whitening | None:
    """The PCA-whitening stored as a linear layer or a 1x1 convolution, in some files in float64."""
    if f"{name}.weight" not in entries and f"{name}.bias" not in entries:
        return None
    weight = entries[f"{name}.weight"]
    entries.shaped(f"{name}.weight", "d", inputs, *(1,) * (weight.ndim - 2))
    bias = entries.shaped(f"{name}.bias", len(weight))
    return Whitening(weight.flatten(1).float().numpy(), bias.float().numpy())


def _without_module(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != "module")
