"""Weights from files that people hold, recognised by content and read without running any code.

Every error is a `UserError` of one line that names the file and says what is wrong with it.
"""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from models import vgg
from models.whitening import Whitening
from schemas.rejects import UserError

CheckpointSource = str | os.PathLike[str] | bytes
"""A path, or the bytes of a file that was read from wherever it lies."""

METADATA_KEY = "vladmap"
VOCABULARY = "vocabulary"
"""The `kind` in the metadata of a vocabulary that vladmap learnt."""

BACKBONE_PREFIX = "backbone."
"""Before the names of the backbone's weights where a vocabulary carries them."""


@dataclass(frozen=True)
class WeightFile:
    """The named tensors of a file; `metadata` is what vladmap wrote beside them, else empty."""

    label: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class NetVladWeights:
    """VGG16-NetVLAD as a file holds it; `centres` is None where there is but a backbone.

    `backbone` has torchvision's layer numbers (`0.weight`); `centres` and `assignment` are (K, D),
    `bias` (K) or None in the first parametrisation, `whitening` the PCA that some files end in.
    """

    backbone: Mapping[str, Tensor]
    centres: Tensor | None = None
    assignment: Tensor | None = None
    bias: Tensor | None = None
    whitening: Whitening | None = None


def read_weights(source: CheckpointSource) -> WeightFile:
    """The tensors of a safetensors file or of one that torch.save wrote, on the CPU.

    Raises UserError where the file is missing, damaged, of another kind, asks for code to be run,
    or holds numbers that are not finite.
    """
    label, data = _contents(source)
    if _is_safetensors(data):
        tensors, metadata = _read_safetensors(label, data)
    elif data[:4] == b"PK\x03\x04" or data[:1] == b"\x80":
        tensors, metadata = _read_pickle(label, data), {}
    else:
        raise UserError(
            f"{label} is not a checkpoint: neither safetensors nor a file that torch.save wrote"
        )
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{label} holds NaN or infinite weights in {name}")
    return WeightFile(label, tensors, metadata)


def is_vocabulary(file: WeightFile) -> bool:
    """Whether the file is a vocabulary that vladmap learnt from a collection."""
    return file.metadata.get("kind") == VOCABULARY


def netvlad_weights(file: WeightFile) -> NetVladWeights:
    """Sort out a VGG16 or VGG16-NetVLAD file: torchvision's, pytorch-NetVlad's, Patch-NetVLAD's.

    `module.` prefixes of multi-GPU training are dropped; K is inferred from the shapes. Raises
    UserError where entries are missing or their shapes contradict each other.
    """
    tensors = {_without_module(name): tensor for name, tensor in file.tensors.items()}
    if "pool.centroids" in tensors or "encoder.0.weight" in tensors:
        return _pytorch_netvlad(file.label, tensors)
    if "features.0.weight" in tensors:
        return NetVladWeights(vgg_backbone(file.label, tensors, "features."))
    first = ", ".join(list(tensors)[:3]) or "nothing"
    raise UserError(
        f"{file.label} is no VGG16-NetVLAD checkpoint (it holds {first}, ...): expected "
        "torchvision's VGG16 state dict, or pytorch-NetVlad's encoder.* and pool.*"
    )


def _pytorch_netvlad(label: str, tensors: Mapping[str, Tensor]) -> NetVladWeights:
    backbone = vgg_backbone(label, tensors, "encoder.")
    centres = _entry(label, tensors, "pool.centroids").float()
    assignment = _entry(label, tensors, "pool.conv.weight").float()
    bias = tensors.get("pool.conv.bias")
    channels = vgg.VGG16.channels
    if centres.ndim != 2 or centres.shape[1] != channels or len(centres) == 0:
        raise UserError(
            f"{label}: pool.centroids has shape {tuple(centres.shape)}, expected (K, {channels})"
        )
    clusters = len(centres)
    _expect(label, "pool.conv.weight", assignment, (clusters, channels, 1, 1))
    if bias is not None:
        _expect(label, "pool.conv.bias", bias, (clusters,))
    return NetVladWeights(
        backbone,
        centres,
        assignment.flatten(1),
        None if bias is None else bias.float(),
        _whitening(label, tensors, clusters * channels),
    )


def _whitening(label: str, tensors: Mapping[str, Tensor], inputs: int) -> Whitening | None:
    """Patch-NetVLAD's `WPCA.0`, a 1x1 convolution, in float64 in some files."""
    if not any(name.startswith("WPCA.") for name in tensors):
        return None
    weight = _entry(label, tensors, "WPCA.0.weight")
    bias = _entry(label, tensors, "WPCA.0.bias")
    _expect(label, "WPCA.0.weight", weight, (weight.shape[0], inputs, 1, 1))
    _expect(label, "WPCA.0.bias", bias, (weight.shape[0],))
    return Whitening(weight.flatten(1).float().numpy(), bias.float().numpy())


def vgg_backbone(label: str, tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """VGG16's weights out of `tensors`, without `prefix`; UserError where one lacks or misfits."""
    backbone = {}
    for name, shape in vgg.shapes().items():
        tensor = _entry(label, tensors, prefix + name)
        _expect(label, prefix + name, tensor, shape)
        backbone[name] = tensor.float()
    return backbone


def _entry(label: str, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise UserError(f"{label} lacks {name}: the checkpoint is incomplete or of another network")
    return tensors[name]


def _expect(label: str, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise UserError(f"{label}: {name} has shape {tuple(tensor.shape)}, expected {shape}")


def _without_module(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != "module")


def _contents(source: CheckpointSource) -> tuple[str, bytes]:
    if isinstance(source, bytes):
        return "the file given", source
    path = Path(source)
    try:
        return str(path), path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path}: {error.strerror}") from error


def _is_safetensors(data: bytes) -> bool:
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") < 1 << 32


def _read_safetensors(label: str, data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        tensors = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        metadata = json.loads(header.get("__metadata__", {}).get(METADATA_KEY, "{}"))
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{label} is truncated or damaged: {_reason(error)}") from error
    return tensors, metadata


class _Ignored:
    """Stands in for the NumPy scalars that training scripts store beside the weights.

    Rebuilding them takes functions that the restricted unpickler rightly refuses.
    """

    def __init__(self, *args: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


_STOOD_IN: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Ignored, "numpy.core.multiarray.scalar"),
    (_Ignored, "numpy._core.multiarray.scalar"),
    (_Ignored, "numpy.dtype"),
    (_Ignored, "_codecs.encode"),
]


def _read_pickle(label: str, data: bytes) -> dict[str, Tensor]:
    try:
        with torch.serialization.safe_globals(_STOOD_IN):
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            raise UserError(
                f"{label} holds more than weights and was refused, as loading it could run code: "
                "save its state_dict alone, or as safetensors, where it can be trusted"
            ) from error
        raise UserError(f"{label} is truncated or damaged: {_reason(error)}") from error
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{label} is truncated or damaged: {_reason(error)}") from error
    for wrapper in ("state_dict", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise UserError(f"{label} holds {type(content).__name__}, not a dictionary of weights")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _reason(error: Exception) -> str:
    """The first sentence of what a library said; the rest is advice to its own developers."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(". ")[0]
