"""Vocabularies learnt from a collection's own photographs.

A vocabulary is a checkpoint: `load_model(name, checkpoint=<its file>)`. The file is safetensors
with the centres, the whitening if one was fitted, the backbone's weights if no installed package
has them, and a card that says what it was made from. Equal vocabularies give equal bytes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as to_safetensors
from torch import Tensor

from vladmap.models.base import Floats
from vladmap.models.whitening import Whitening, fit_reduction, fit_whitening, whitening_arrays
from vladmap.schemas import SCHEMA_VERSION
from vladmap.schemas.rejects import UserError
from vladmap.weights.preprocessing import Preprocessing
from vladmap.weights.reading import (
    BACKBONE_PREFIX,
    METADATA_KEY,
    VOCABULARY,
    WeightFile,
    is_vocabulary,
    part_of,
    preprocessing_of,
    read_weights,
)


@dataclass(frozen=True)
class Vocabulary:
    """`centres` (K, D) of `model`'s local descriptors, whose source has `backbone_digest`.

    `alpha` is the sharpness of soft assignment that suits the sample that the centres were learnt
    from, 0 for a single centre. `patch_whitening` is the whitening of patch descriptors, where it
    differs from the global one. `idf` (K) are the weights of a bag of words. `backbone` and its
    `preprocessing` are set where no installed package has the backbone's weights.
    """

    model: str
    backbone_digest: str
    seed: int
    centres: NDArray[np.float32]
    whitening: Whitening | None = None
    backbone: Mapping[str, Tensor] = field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    alpha: float = 0.0
    patch_whitening: Whitening | None = None
    idf: NDArray[np.float32] | None = None


def reduce(vocabulary: Vocabulary, descriptors: Floats, dimension: int) -> Vocabulary:
    """The vocabulary with a reduction to at most `dimension` numbers by `fit_reduction`.

    It is fitted on (n, K * D) global descriptors; with too few of them there is no reduction.
    """
    fitted = fit_reduction(descriptors, dimension)
    return dataclasses.replace(vocabulary, whitening=fitted)


def whiten_patches(vocabulary: Vocabulary, patches: Floats, dimension: int) -> Vocabulary:
    """The vocabulary with PCA-whitening of its patch descriptors, fitted on (n, K * D) patches.

    Raises UserError below ten patches a dimension.
    """
    fitted = fit_whitening(patches, dimension, "patches")
    return dataclasses.replace(vocabulary, patch_whitening=fitted)


def to_bytes(vocabulary: Vocabulary) -> bytes:
    """The vocabulary as a safetensors file."""
    arrays = {"centres": vocabulary.centres} | whitening_arrays(vocabulary.whitening)
    arrays |= whitening_arrays(vocabulary.patch_whitening, "patch_whitening")
    if vocabulary.idf is not None:
        arrays["idf"] = vocabulary.idf
    tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
    tensors |= {BACKBONE_PREFIX + name: tensor for name, tensor in vocabulary.backbone.items()}
    clusters, dimension = vocabulary.centres.shape
    card = {
        "kind": VOCABULARY,
        "schema_version": SCHEMA_VERSION,
        "model": vocabulary.model,
        "backbone_digest": vocabulary.backbone_digest,
        "clusters": clusters,
        "dimension": dimension,
        "seed": vocabulary.seed,
        "alpha": vocabulary.alpha,
    }
    if vocabulary.preprocessing is not None:
        card["preprocessing"] = dataclasses.asdict(vocabulary.preprocessing)
    # A single metadata entry: safetensors writes several in an order that varies between runs.
    return to_safetensors(tensors, {METADATA_KEY: json.dumps(card, sort_keys=True)})


def from_bytes(data: bytes) -> Vocabulary:
    """The inverse of `to_bytes`; UserError where the bytes are not a valid vocabulary."""
    return parse(read_weights(data))


def parse(file: WeightFile) -> Vocabulary:
    """The vocabulary in a file that was read; UserError where there is none or it is invalid."""
    if not is_vocabulary(file):
        raise UserError(f"{file.label} is not a vocabulary that vladmap learnt from a collection")
    try:
        return _parsed(file, file.metadata)
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(f"{file.label} has a damaged card: {error!r}") from error


def _parsed(file: WeightFile, card: Mapping[str, Any]) -> Vocabulary:
    if card.get("schema_version", 0) > SCHEMA_VERSION:
        raise UserError(
            f"{file.label} was written by a newer vladmap (schema {card['schema_version']}): "
            "update vladmap"
        )
    centres = file.tensors.get("centres")
    expected = (card.get("clusters"), card.get("dimension"))
    if centres is None or tuple(centres.shape) != expected:
        shape = "no" if centres is None else tuple(centres.shape)
        raise UserError(f"{file.label} has {shape} centres, its card says {expected}")
    idf = file.tensors.get("idf")
    if idf is not None and tuple(idf.shape) != centres.shape[:1]:
        raise UserError(f"{file.label} has {len(centres)} words and weights for {len(idf)}")
    return Vocabulary(
        model=str(card.get("model", "")),
        backbone_digest=str(card.get("backbone_digest", "")),
        seed=int(card.get("seed", 0)),
        centres=centres.float().numpy(),
        whitening=_whitening(file, "whitening", centres.numel()),
        patch_whitening=_whitening(file, "patch_whitening", centres.numel()),
        backbone=part_of(file.tensors, BACKBONE_PREFIX),
        preprocessing=preprocessing_of(file.label, card),
        alpha=float(card.get("alpha", 0.0)),
        idf=None if idf is None else idf.float().numpy(),
    )


def _whitening(file: WeightFile, name: str, inputs: int) -> Whitening | None:
    weight, bias = (file.tensors.get(f"{name}.{part}") for part in ("weight", "bias"))
    if weight is None and bias is None:
        return None
    if weight is None or bias is None or tuple(weight.shape) != (len(bias), inputs):
        raise UserError(f"{file.label} holds a whitening that does not fit its centres")
    return Whitening(weight.float().numpy(), bias.float().numpy())
