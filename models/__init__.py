"""Descriptor models: `load_model(name, checkpoint, device, precision).describe(images)`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vladmap.models.kinds import MODEL_NAMES

if TYPE_CHECKING:
    from vladmap.models.base import DescriptorModel, ModelSpec
    from vladmap.models.registry import load_model
    from vladmap.weights.preprocessing import FixedSize, GivenSize, InputSize

__all__ = [
    "MODEL_NAMES",
    "DescriptorModel",
    "FixedSize",
    "GivenSize",
    "InputSize",
    "ModelSpec",
    "load_model",
]

_HOMES = {
    "DescriptorModel": "vladmap.models.base",
    "FixedSize": "vladmap.weights.preprocessing",
    "GivenSize": "vladmap.weights.preprocessing",
    "InputSize": "vladmap.weights.preprocessing",
    "ModelSpec": "vladmap.models.base",
    "load_model": "vladmap.models.registry",
}


def __getattr__(name: str) -> Any:
    """Import a module when one of its names is first used: MODEL_NAMES alone needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
