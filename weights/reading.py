"""Reads files of weights. Formats are recognised by content, and no code in a file is run.

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

import numpy as np
import safetensors
import safetensors.torch
import torch
from scipy.io import loadmat
from torch import Tensor

from vladmap.schemas.rejects import UserError
from vladmap.weights.preprocessing import (
    FixedSize,
    GivenSize,
    InputSize,
    Preprocessing,
    Size,
)

CheckpointSource = str | os.PathLike[str] | bytes
"""A local path, or the bytes of a file that the caller has read."""

METADATA_KEY = "vladmap"
VOCABULARY = "vocabulary"
"""The `kind` in the metadata of a vocabulary that vladmap learnt."""

BACKBONE_PREFIX = "backbone."
"""Prefix of the names of the backbone's weights in a vocabulary that contains them."""


@dataclass(frozen=True)
class WeightFile:
    """The named tensors of a file; `metadata` is vladmap's own, empty in files of others."""

    label: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any]


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def read_weights(source: CheckpointSource) -> WeightFile:
    """The tensors of a file on the CPU: safetensors, written by torch.save, or a MATLAB .mat.

    Of a MatConvNet file they are named `layers.N.weights.M` and `averageImage`.

    Raises UserError where the file is missing, damaged, of another kind, asks for code to be run,
    or holds numbers that are not finite.
    """
    label, data = _contents(source)
    if _is_safetensors(data):
        tensors, metadata = _read_safetensors(label, data)
    elif data[:4] == b"PK\x03\x04" or data[:1] == b"\x80":
        tensors, metadata = _read_pickle(label, data), {}
    elif data[:6] == b"MATLAB":
        tensors, metadata = _read_matlab(label, data), {}
    else:
        raise UserError(
            f"{label} is not a checkpoint: neither safetensors, nor a file that torch.save wrote, "
            "nor a MATLAB .mat"
        )
    for name, tensor in tensors.items():
        _require_numbers(label, name, tensor)
    return WeightFile(label, tensors, metadata)


def _require_numbers(label: str, name: str, tensor: Tensor) -> None:
    """Raises UserError for a tensor that is not dense, not wholly in the file, or not finite."""
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_quantized or tensor.is_nested:
        raise UserError(f"{label}: {name} is not a plain tensor: save it dense and on the CPU")
    # A few bytes can claim to be a tensor of any size.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UserError(f"{label}: {name} claims {tensor.numel():,} numbers, the file holds fewer")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise UserError(f"{label} holds NaN or infinite weights in {name}")


def is_vocabulary(file: WeightFile) -> bool:
    """Whether the file is a vocabulary that vladmap learnt from a collection."""
    return file.metadata.get("kind") == VOCABULARY


def preprocessing_of(label: str, card: Mapping[str, Any]) -> Preprocessing | None:
    """The pre-processing in a model card of vladmap's, None where it has none."""
    if "preprocessing" not in card:
        return None
    try:
        values = card["preprocessing"]
        return Preprocessing(
            tuple(map(float, values["mean"])),
            tuple(map(float, values["std"])),
            _size(values["size"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{label} has a damaged model card: {error!r}") from error


def _size(card: Mapping[str, int]) -> Size:
    if "width" in card:
        return FixedSize(**card)
    return GivenSize(**card) if "longest" in card else InputSize(**card)


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
        if not isinstance(metadata, dict):
            raise ValueError(f"its model card is {type(metadata).__name__}, not an object")
    # The errors for deep nesting, a header that is too long and a card of another type have no
    # common base class.
    except Exception as error:
        raise UserError(f"{label} is truncated or damaged: {_reason(error)}") from error
    return tensors, metadata


class _Ignored:
    """Replaces the NumPy scalars that training scripts store beside the weights.

    To rebuild them takes functions that the restricted unpickler refuses, as it should.
    """

    def __init__(self, *args: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


_IGNORED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Ignored, "numpy.core.multiarray.scalar"),
    (_Ignored, "numpy._core.multiarray.scalar"),
    (_Ignored, "numpy.dtype"),
    (_Ignored, "_codecs.encode"),
]


def _read_pickle(label: str, data: bytes) -> dict[str, Tensor]:
    try:
        with torch.serialization.safe_globals(_IGNORED):
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            raise UserError(
                f"{label} holds more than weights and was refused, as loading it could run code: "
                "save its state_dict alone, or as safetensors, where it can be trusted"
            ) from error
        raise UserError(f"{label} is truncated or damaged: {_reason(error)}") from error
    # A damaged file may fail anywhere in the reader, with any exception.
    except Exception as error:
        raise UserError(f"{label} is truncated or damaged: {_reason(error)}") from error
    for wrapper in ("state_dict", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise UserError(f"{label} holds {type(content).__name__}, not a dictionary of weights")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _read_matlab(label: str, data: bytes) -> dict[str, Tensor]:
    """The tensors of a MatConvNet network, saved as the struct `net`; a .mat file has no code."""
    if data[:10] == b"MATLAB 7.3":
        raise UserError(f"{label} is a MATLAB 7.3 file: save it in MATLAB again with `-v7`")
    try:
        content = loadmat(io.BytesIO(data), struct_as_record=False, squeeze_me=True)
    # A damaged file may fail anywhere in the reader, with any exception.
    except Exception as error:
        raise UserError(f"{label} is truncated or damaged: {_reason(error)}") from error
    try:
        net = content["net"]
        image = np.asarray(net.meta.normalization.averageImage, np.float64)
        tensors = {"averageImage": torch.from_numpy(image.reshape(-1, 3)[0].copy())}
        for number, layer in enumerate(net.layers):
            for place, weights in enumerate(getattr(layer, "weights", ())):
                array = np.ascontiguousarray(weights, np.float32)
                tensors[f"layers.{number}.weights.{place}"] = torch.from_numpy(array)
    except (KeyError, AttributeError, ValueError, TypeError) as error:
        raise UserError(
            f"{label} is no MatConvNet network (net.layers, net.meta): {_reason(error)}"
        ) from error
    return tensors


def _reason(error: Exception) -> str:
    """The first sentence of a library's error message; the rest is advice to programmers."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(". ")[0]
