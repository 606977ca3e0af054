"""Descriptor models by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from vladmap.models.aggregated import AggregatedModel
from vladmap.models.aggregations.base import Aggregation
from vladmap.models.aggregations.bovw import BovwModel
from vladmap.models.aggregations.registry import AGGREGATIONS
from vladmap.models.aggregations.vlad import VladModel
from vladmap.models.backbones.registry import Backbone, LocalSource, backbone_of, installed
from vladmap.models.base import DescriptorModel
from vladmap.models.checkpoints.layouts import Network, network, to_bytes
from vladmap.models.checkpoints.vocabulary import parse
from vladmap.models.kinds import (
    CLASSICAL,
    CLUSTERS,
    DEFAULT_DIMENSION,
    INSTALLED,
    KINDS,
    MODEL_NAMES,
    TRAINED,
    WHOLE,
)
from vladmap.models.local import PRECISIONS, ConvolutionalFeatures, RootSiftFeatures
from vladmap.models.thumbnail import GEOMETRY, GEOMETRY_NAME, ThumbnailModel, thumbnail_file
from vladmap.schemas.rejects import UserError
from vladmap.weights.devices import torch_device
from vladmap.weights.entries import Entries
from vladmap.weights.reading import (
    BACKBONE_PREFIX,
    CheckpointSource,
    WeightFile,
    is_vocabulary,
    read_weights,
)

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the weights that ship; each file's card is the `.md` beside it."""


def _trained() -> Backbone:
    """EfficientNet-Lite0, made robust to light and weather by `vladmap distil`."""
    return network(read_weights(WEIGHTS / "netvlad-lite.safetensors")).backbone


_BACKBONES: dict[str, Callable[[], Backbone]] = {INSTALLED: installed, TRAINED: _trained}


def default_clusters(name: str, reduced: bool = True) -> int:
    """The default number of visual words that a model learns from a collection.

    It is that of the publication; for a bag of words, as many as can be learnt from a sample of a
    few hundred photographs. It is doubled for a model that is reduced by default, where descriptors
    are `reduced` and so do not get longer by it: recall@1 rises by 1 to 4 points on rendered cities
    in other weather, and by 1 on a walk past shops. Callers do not pass `reduced` where patches are
    described as well: each of these is projected from its full length.
    """
    return CLUSTERS[name] * (2 if DEFAULT_DIMENSION[name] and reduced else 1)


def aggregation_of(name: str) -> type[Aggregation]:
    """The aggregation of a model that stands on a backbone."""
    return AGGREGATIONS[KINDS[name].aggregation]


def catalogue() -> dict[str, str]:
    """Every model's name with a line on what it is and whether it needs a file."""
    lines = {
        name: f"{kind.text} (needs {kind.checkpoint})"
        if not kind.ships
        else f"{kind.text} (needs no file)"
        for name, kind in KINDS.items()
    }
    return lines | {name: f"{text} (needs no file)" for name, text in (CLASSICAL | WHOLE).items()}


def spare_clusters(name: str) -> int:
    """The number of clusters that are learnt but left out of the descriptor: SuperVLAD's ghosts."""
    return aggregation_of(name).spare_words if name in KINDS else 0


def load_model(
    name: str,
    checkpoint: CheckpointSource | None = None,
    device: str = "cpu",
    precision: str = "float32",
) -> DescriptorModel:
    """The model `name`, one of MODEL_NAMES, ready to describe images.

    `checkpoint` is a local path or a file's bytes: a vocabulary learnt from a collection, for a
    model that is made of one, or a checkpoint in any layout of `models.checkpoints.layouts`. `gem`
    needs none.
    `device` is `cpu` or `cuda`, `precision` `float32`, `bfloat16` or `float16` of the backbone.
    Raises UserError for anything that the user can mend: an unknown name, a wrong or damaged file,
    a GPU that is not there.
    """
    _check(name)
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    torch_device(device)
    if name in WHOLE:
        if checkpoint is not None:
            _check_whole(name, checkpoint)
        return ThumbnailModel()
    if checkpoint is None and _ships_whole(name):
        return _assembled(name, Network("installed", installed()), device, precision)
    if checkpoint is None:
        sources = ["a vocabulary learnt from the collection"] if _learns(name) else []
        sources += [KINDS[name].checkpoint] if name in KINDS else []
        raise UserError(f"the model {name} needs a checkpoint: {' or '.join(sources)}")
    file = read_weights(checkpoint)
    if is_vocabulary(file):
        return _from_vocabulary(name, file, device, precision)
    if name not in KINDS:
        raise UserError(f"{file.label} is not a vocabulary for {name}")
    return _assembled(name, _fitting(name, file), device, precision)


def local_descriptors(
    name: str,
    checkpoint: CheckpointSource | WeightFile | None = None,
    device: str = "cpu",
    precision: str = "float32",
) -> LocalSource:
    """The source of the local descriptors that the model `name` aggregates.

    Those of a backbone come from `checkpoint`, in any layout of `models.checkpoints.layouts` or a
    vocabulary, whatever it aggregates them by; else from the weights that ship or an installed
    package. Raises UserError for an unknown name, unsound weights or a missing GPU, and for a model
    that aggregates none.
    """
    _check(name)
    if name in WHOLE:
        raise UserError(f"the model {name} has no local descriptors")
    if name in CLASSICAL:
        return LocalSource(RootSiftFeatures())
    kind = KINDS[name]
    file = None
    if checkpoint is not None:
        file = checkpoint if isinstance(checkpoint, WeightFile) else read_weights(checkpoint)
    if file is None or (is_vocabulary(file) and not _carries_backbone(file)):
        if not kind.ships:
            also = ", or a backbone's state dict to learn its clusters on" if _learns(name) else ""
            raise UserError(f"the model {name} needs a checkpoint: {kind.checkpoint}{also}")
        return LocalSource(_BACKBONES[kind.ships]().features(device, precision))
    own = _carried(file) if is_vocabulary(file) else _backbone_of(name, file)
    return LocalSource(own.features(device, precision), own)


def shipped_weights(name: str) -> bytes | None:
    """The file of a model that needs neither a checkpoint nor learning, else None."""
    if name in WHOLE:
        return thumbnail_file()
    return to_bytes(Network("installed", installed()), b"") if _ships_whole(name) else None


def is_complete(name: str, checkpoint: CheckpointSource | None) -> bool:
    """Whether `checkpoint` has all of the model, so that nothing must be learnt.

    Raises UserError where it is no checkpoint for `name`.
    """
    if checkpoint is None:
        return False
    if name in WHOLE:
        _check_whole(name, checkpoint)
        return True
    file = read_weights(checkpoint)
    if is_vocabulary(file):
        return True
    if name not in KINDS:
        raise UserError(f"{file.label} is not a vocabulary for {name}")
    net = _fitting(name, file, whole=not _learns(name))
    return net.aggregation is not None or aggregation_of(name).needs_no_weights


def patch_dimension(name: str, checkpoint: CheckpointSource | None) -> int | None:
    """Length of a patch descriptor by the file's own PCA; None where that must be learnt first.

    Raises UserError for a complete model without a PCA for its patches: at K * D numbers each, the
    patches of one image would take tens of megabytes.
    """
    if checkpoint is None or not is_complete(name, checkpoint):
        return None
    file = read_weights(checkpoint)
    if is_vocabulary(file):
        vocabulary = parse(file)
        whitening = vocabulary.patch_whitening or vocabulary.whitening
    else:
        whitening = network(file).whitening
    if whitening is None:
        raise UserError(
            f"{file.label} has no PCA for patches: re-rank by `features`, or take a checkpoint "
            "with one (Patch-NetVLAD's WPCA files)"
        )
    return len(whitening.bias)


def check_learns(name: str) -> None:
    """Raises UserError for a model that is not made of words learnt from a collection."""
    if not _learns(name):
        raise UserError(f"the model {name} learns no words from a collection")


def _learns(name: str) -> bool:
    if name in WHOLE:
        return False
    return name in CLASSICAL or aggregation_of(name).learns_words


def _ships_whole(name: str) -> bool:
    """Whether the model needs neither a checkpoint nor learning."""
    return name in KINDS and bool(KINDS[name].ships) and aggregation_of(name).needs_no_weights


def _check_whole(name: str, checkpoint: CheckpointSource) -> None:
    """Raises UserError for a file that is not the one that stands for the model in an atlas."""
    file = read_weights(checkpoint)
    given = file.tensors.get(GEOMETRY_NAME)
    if given is None or not torch.equal(given, torch.from_numpy(GEOMETRY)):
        raise UserError(f"{file.label} is not of {name}, which needs no checkpoint")


def _check(name: str) -> None:
    if name not in MODEL_NAMES:
        raise UserError(f"unknown model {name!r}: choose one of {', '.join(MODEL_NAMES)}")


def _fitting(name: str, file: WeightFile, whole: bool = True) -> Network:
    """The network in a file; UserError where it does not fit the model's name.

    `whole`: it must include its aggregation.
    """
    _backbone_of(name, file)
    net, expected = network(file), aggregation_of(name)
    aggregation = net.aggregation
    if aggregation is None and whole and not expected.needs_no_weights:
        way_out = (
            f"learn the clusters of {name} from the collection first"
            if expected.learns_words
            else f"{name} needs {KINDS[name].checkpoint}"
        )
        raise UserError(f"{file.label} holds {net.backbone.name} alone: {way_out}")
    if aggregation is not None and not isinstance(aggregation, expected):
        raise UserError(
            f"{file.label} ends in {type(aggregation).__name__}, {name} needs {expected.__name__}"
        )
    return net


def _backbone_of(name: str, file: WeightFile) -> Backbone:
    """The backbone in a file; UserError where it is none of the model's backbones."""
    backbone = network(file).backbone
    if not backbone.name.startswith(KINDS[name].backbones):
        raise UserError(f"{file.label} holds {backbone.name}, which is not {name}'s backbone")
    return backbone


def _assembled(name: str, net: Network, device: str, precision: str) -> AggregatedModel:
    features = net.backbone.features(device, precision)
    aggregation = net.aggregation
    if aggregation is None:
        aggregation = aggregation_of(name).on_backbone(features.dimension)
    return AggregatedModel(name, features, aggregation, net.whitening, KINDS[name].patch_sizes)


def _carries_backbone(file: WeightFile) -> bool:
    return any(key.startswith(BACKBONE_PREFIX) for key in file.tensors)


def _carried(file: WeightFile) -> Backbone:
    """The backbone that is stored in a vocabulary because no installed package has it."""
    vocabulary = parse(file)
    entries = Entries(file.label, vocabulary.backbone, BACKBONE_PREFIX)
    return backbone_of(entries, vocabulary.preprocessing)


def _from_vocabulary(name: str, file: WeightFile, device: str, precision: str) -> DescriptorModel:
    vocabulary = parse(file)
    check_learns(name)
    if vocabulary.model != name:
        raise UserError(f"{file.label} is a vocabulary for {vocabulary.model}, not for {name}")
    source = local_descriptors(name, file, device, precision)
    features = source.features
    if vocabulary.backbone_digest != features.digest:
        raise UserError(
            f"{file.label} was learnt with other weights of the backbone than those installed: "
            "learn it again"
        )
    if vocabulary.centres.shape[1] != features.dimension:
        raise UserError(
            f"{file.label} has centres of {vocabulary.centres.shape[1]} numbers, "
            f"{name} needs {features.dimension}"
        )
    if name == "bovw":
        if vocabulary.idf is None:
            raise UserError(f"{file.label} has no weights of its words: learn it again")
        return BovwModel(name, features, vocabulary.centres, vocabulary.idf)
    if not isinstance(features, ConvolutionalFeatures):
        return VladModel(name, features, vocabulary.centres, vocabulary.whitening)
    centres = torch.from_numpy(vocabulary.centres)
    return AggregatedModel(
        name,
        features,
        aggregation_of(name).from_words(centres, vocabulary.alpha),
        vocabulary.whitening,
        KINDS[name].patch_sizes,
        vocabulary.patch_whitening,
    )
