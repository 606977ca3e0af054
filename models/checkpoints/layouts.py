"""Which network a file of weights holds: every layout that people have, told apart by content.

| file | by |
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
from torch import Tensor, nn

from vladmap.models.aggregations.gem import GeM
from vladmap.models.aggregations.netvlad import NetVLAD
from vladmap.models.aggregations.supervlad import SuperVLAD
from vladmap.models.backbones.registry import Backbone, backbone, is_backbone
from vladmap.models.whitening import Whitening, whitening_arrays
from vladmap.schemas import SCHEMA_VERSION
from vladmap.schemas.rejects import UserError
from vladmap.weights.preprocessing import InputSize, Preprocessing
from vladmap.weights.reading import METADATA_KEY, WeightFile, part_of, preprocessing_of

MODEL = "model"
"""The `kind` in the metadata of a model in vladmap's own format."""

_AS_GIVEN = 32  # no published pipeline enlarges a photograph; below this a network sees nothing
_OPENIBL_MEAN = (0.48501960784313836, 0.4579568627450961, 0.4076039215686255)


@dataclass(frozen=True)
class Network:
    """A backbone and what the file says of the layers after it.

    `aggregation` is None where the file holds a backbone alone; `format` names the layout.
    """

    format: str
    backbone: Backbone
    aggregation: nn.Module | None = None
    whitening: Whitening | None = None


def network(file: WeightFile) -> Network:
    """Sort out the weights of a file; `module.` prefixes of multi-GPU training are dropped.

    Raises UserError where the layout is none that is known, entries are missing, or their shapes
    contradict each other.
    """
    tensors = {_without_module(name): tensor for name, tensor in file.tensors.items()}
    if file.metadata.get("kind") == MODEL:
        return _own(file.label, tensors, file.metadata)
    for recognised, sort_out in _LAYOUTS:
        if recognised(tensors):
            return sort_out(file.label, tensors)
    first = ", ".join(list(tensors)[:3]) or "nothing"
    raise UserError(
        f"{file.label} is no checkpoint that is known (it holds {first}, ...): expected "
        "pytorch-NetVlad, Patch-NetVLAD, hloc's .mat, OpenIBL, the deep visual geo-localization "
        "benchmark, or a state dict of VGG16, ResNet, DINOv2 or EfficientNet-Lite0"
    )


def to_bytes(net: Network, source: bytes, half: bool = False) -> bytes:
    """The network as safetensors with a model card, which `network` reads back.

    `half` keeps the whitening, most of a small model, in half precision.
    `source` are the bytes of the file it came from; their SHA-256 stands in the card.
    """
    tensors = {f"backbone.{name}": tensor for name, tensor in net.backbone.weights.items()}
    if net.aggregation is not None:
        state = net.aggregation.state_dict()
        tensors |= {f"aggregation.{name}": tensor for name, tensor in state.items()}
    arrays = whitening_arrays(net.whitening)
    kept = torch.float16 if half else torch.float32
    tensors |= {name: torch.from_numpy(array).to(kept) for name, array in arrays.items()}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    about = {
        "kind": MODEL,
        "schema_version": SCHEMA_VERSION,
        "source": {"sha256": hashlib.sha256(source).hexdigest()},
        **card(net),
    }
    return to_safetensors(tensors, {METADATA_KEY: json.dumps(about, sort_keys=True)})


def card(net: Network) -> dict[str, Any]:
    """What people ask of a checkpoint: its layout, backbone, aggregation, K, D, PCA."""
    about: dict[str, Any] = {"format": net.format, "backbone": net.backbone.name}
    if net.aggregation is not None:
        about["aggregation"] = described(net.aggregation)
    about["pca"] = None if net.whitening is None else len(net.whitening.bias)
    about["preprocessing"] = asdict(net.backbone.preprocessing)
    return about


def described(aggregation: nn.Module) -> dict[str, Any]:
    """An aggregation's name and whatever of it its arrays do not tell; TypeError for another."""
    if isinstance(aggregation, NetVLAD):
        clusters, dimension = aggregation.centres.shape
        return {
            "name": "netvlad",
            "clusters": clusters,
            "dimension": dimension,
            "floor": aggregation.floor,
        }
    if isinstance(aggregation, SuperVLAD):
        return {
            "name": "supervlad",
            "clusters": aggregation.clusters,
            "dimension": aggregation.assignment.shape[1],
            "ghosts": aggregation.ghosts,
        }
    if isinstance(aggregation, GeM):
        return {
            "name": "gem",
            "dimension": aggregation.dimension,
            "normalise_locals": aggregation.normalise_locals,
        }
    raise TypeError(f"no name for the aggregation {type(aggregation).__name__}")


def _own(label: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Network:
    try:
        return _of_card(label, tensors, metadata)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(f"{label} has a damaged model card: {error!r}") from error


def _of_card(label: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Network:
    if metadata["schema_version"] > SCHEMA_VERSION:
        raise UserError(f"{label} was written by a newer vladmap: update vladmap")
    about = metadata.get("aggregation")
    format_name = metadata["format"]
    if about is not None:
        name, dimension = about["name"], int(about["dimension"])
        settings = about.get("floor"), about.get("ghosts"), about.get("normalise_locals")
    preprocessing = preprocessing_of(label, metadata)
    found = backbone(label, part_of(tensors, "backbone."), preprocessing)
    if about is None:
        return Network(format_name, found)
    floor, ghosts, normalise_locals = settings
    aggregation: nn.Module
    if name == "netvlad":
        aggregation = _netvlad(label, tensors, "aggregation.", found, own=True)
        aggregation.floor = float(floor)
    elif name == "supervlad":
        assignment = _entry(label, tensors, "aggregation.assignment")
        _expect(label, "aggregation.assignment", assignment, (len(assignment), found.channels))
        aggregation = SuperVLAD(assignment, int(ghosts))
    elif name == "gem":
        power = _entry(label, tensors, "aggregation.power")
        aggregation = GeM(dimension, float(power), bool(normalise_locals))
    else:
        raise UserError(f"{label} names an unknown aggregation {name!r} in its model card")
    inputs: int = aggregation.dimension
    whitening = _whitening(label, tensors, "whitening", inputs)
    return Network(format_name, found, aggregation, whitening)


def _pytorch_netvlad(label: str, tensors: Mapping[str, Tensor]) -> Network:
    found = backbone(label, part_of(tensors, "encoder."), prefix="encoder.")
    aggregation = _netvlad(label, tensors, "pool.", found)
    whitening = _whitening(label, tensors, "WPCA.0", aggregation.dimension)
    name = "pytorch-NetVlad" if whitening is None else "Patch-NetVLAD"
    return Network(name, found, aggregation, whitening)


def _openibl(label: str, tensors: Mapping[str, Tensor]) -> Network:
    preprocessing = Preprocessing(_OPENIBL_MEAN, (1 / 255,) * 3, InputSize(_AS_GIVEN, 640))
    prefix = "base_model.base." if "base_model.base.0.weight" in tensors else "base_model."
    found = backbone(label, part_of(tensors, prefix), preprocessing, prefix)
    aggregation = _netvlad(label, tensors, "net_vlad.", found)
    whitening = _whitening(label, tensors, "pca_layer", aggregation.dimension)
    return Network("OpenIBL", found, aggregation, whitening)


def _geo_localization_benchmark(label: str, tensors: Mapping[str, Tensor]) -> Network:
    if any(name.startswith("encoder.") for name in tensors):
        raise UserError(
            f"{label} ends in a cross-image encoder, which makes a descriptor depend on the other "
            "images of its batch: use a checkpoint that was trained without it"
        )
    layers = part_of(tensors, "backbone.")
    found = backbone(label, _torchvision_names(layers), prefix="backbone.")
    head = part_of(tensors, "aggregation.")
    if "conv.weight" in head and "centroids" not in head:
        assignment = head["conv.weight"].flatten(1)
        _expect(label, "aggregation.conv.weight", assignment, (len(assignment), found.channels))
        # Published with 4 clusters and a ghost, or with one cluster and two.
        ghosts = 2 if len(assignment) == 3 else 1
        if len(assignment) <= ghosts:
            raise UserError(f"{label}: aggregation.conv.weight leaves no cluster beside its ghost")
        return Network("SuperVLAD", found, SuperVLAD(assignment, ghosts))
    name = "deep visual geo-localization benchmark"
    if "conv.weight" in head or "centroids" in head:
        aggregation = _netvlad(label, tensors, "aggregation.", found)
        return Network(name, found, aggregation)
    powers = sorted(key for key in head if key == "p" or key.endswith(".p"))
    if not powers:
        raise UserError(f"{label} holds neither NetVLAD nor GeM under aggregation.*")
    # Sequential(L2Norm, GeM, ...) has it second: locals are normalised before pooling.
    gem = GeM(found.channels, float(head[powers[0]]), powers[0].removesuffix(".p").endswith("1"))
    # A fully connected layer and a normalisation after it are what a whitening is.
    return Network(name, found, gem, _whitening(label, tensors, "aggregation.1", found.channels))


_STAGES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def _torchvision_names(layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The benchmark numbers a ResNet's children; torchvision names them."""
    if not any(name.startswith("4.0.conv1") for name in layers):
        return dict(layers)
    renamed = {}
    for name, tensor in layers.items():
        number, _, rest = name.partition(".")
        renamed[f"{_STAGES.get(number, number)}.{rest}"] = tensor
    return renamed


def _matconvnet(label: str, tensors: Mapping[str, Tensor]) -> Network:
    mean = _entry(label, tensors, "averageImage").float() / 255
    preprocessing = Preprocessing(tuple(mean.tolist()), (1 / 255,) * 3, InputSize(_AS_GIVEN, 1024))
    layers = {}
    # MatConvNet numbers layers as torchvision does up to conv5_3; its kernels are H x W x in x out.
    for number in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28):
        kernel = _entry(label, tensors, f"layers.{number}.weights.0")
        if kernel.ndim != 4:
            raise UserError(f"{label}: layer {number} is no convolution of VGG16")
        layers[f"{number}.weight"] = kernel.permute(3, 2, 0, 1)
        layers[f"{number}.bias"] = _entry(label, tensors, f"layers.{number}.weights.1").flatten()
    found = backbone(label, layers, preprocessing)
    assignment = _entry(label, tensors, "layers.30.weights.0").float()
    centres = -_entry(label, tensors, "layers.30.weights.1").float()  # stored with opposite sign
    clusters, channels = assignment.shape[-1], found.channels
    _expect(label, "layers.30.weights.0", assignment, (channels, clusters))
    _expect(label, "layers.30.weights.1", centres, (channels, clusters))
    aggregation = NetVLAD(centres.T.contiguous(), assignment.T.contiguous(), None)
    whitening = None
    if "layers.33.weights.0" in tensors:
        weight = tensors["layers.33.weights.0"].float().flatten(0, -2)
        bias = _entry(label, tensors, "layers.33.weights.1").float().flatten()
        _expect(label, "layers.33.weights.0", weight, (clusters * channels, len(bias)))
        # Its descriptor is flattened dimension by dimension, clusters fastest; ours by clusters.
        by_cluster = weight.view(channels, clusters, -1).permute(2, 1, 0).flatten(1)
        whitening = Whitening(by_cluster.contiguous().numpy(), bias.numpy())
    return Network("hloc", found, aggregation, whitening)


def _torchvision(label: str, tensors: Mapping[str, Tensor]) -> Network:
    return Network(
        "torchvision", backbone(label, part_of(tensors, "features."), prefix="features.")
    )


def _backbone_alone(label: str, tensors: Mapping[str, Tensor]) -> Network:
    # Up to layer3, at stride 16, as the deep visual geo-localization benchmark prefers.
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("layer4.")}
    return Network("state dict", backbone(label, kept))


_LAYOUTS: tuple[
    tuple[Callable[[Mapping[str, Tensor]], bool], Callable[[str, Mapping[str, Tensor]], Network]],
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


def _netvlad(
    label: str, tensors: Mapping[str, Tensor], prefix: str, found: Backbone, own: bool = False
) -> NetVLAD:
    """NetVLAD's entries as the PyTorch ports name them, or as vladmap's own format does."""
    names = ("centres", "assignment", "bias") if own else ("centroids", "conv.weight", "conv.bias")
    centres_name, assignment_name, bias_name = (prefix + name for name in names)
    centres = _entry(label, tensors, centres_name)
    assignment = _entry(label, tensors, assignment_name)
    bias = tensors.get(bias_name)
    if centres.ndim != 2 or centres.shape[1] != found.channels or len(centres) == 0:
        raise UserError(
            f"{label}: {centres_name} has shape {tuple(centres.shape)}, "
            f"expected (K, {found.channels})"
        )
    clusters = len(centres)
    tail = () if own else (1, 1)
    _expect(label, assignment_name, assignment, (clusters, found.channels, *tail))
    if bias is not None:
        _expect(label, bias_name, bias, (clusters,))
    return NetVLAD(centres, assignment.flatten(1), bias)


def _whitening(
    label: str, tensors: Mapping[str, Tensor], name: str, inputs: int
) -> Whitening | None:
    """PCA-whitening as a linear layer or a 1x1 convolution, in float64 in some files."""
    if f"{name}.weight" not in tensors and f"{name}.bias" not in tensors:
        return None
    weight = _entry(label, tensors, f"{name}.weight")
    bias = _entry(label, tensors, f"{name}.bias")
    _expect(label, f"{name}.weight", weight, (len(weight), inputs, *(1,) * (weight.ndim - 2)))
    _expect(label, f"{name}.bias", bias, (len(weight),))
    return Whitening(weight.flatten(1).float().numpy(), bias.float().numpy())


def _entry(label: str, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise UserError(f"{label} lacks {name}: the checkpoint is incomplete or of another network")
    return tensors[name]


def _expect(label: str, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise UserError(f"{label}: {name} has shape {tuple(tensor.shape)}, expected {shape}")


def _without_module(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != "module")
