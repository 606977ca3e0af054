"""Descriptor models: `load_model(name, checkpoint, device, precision).describe(images)`."""

from models.base import DescriptorModel, FixedSize, InputSize, ModelSpec
from models.registry import MODEL_NAMES, load_model

__all__ = [
    "MODEL_NAMES",
    "DescriptorModel",
    "FixedSize",
    "InputSize",
    "ModelSpec",
    "load_model",
]
