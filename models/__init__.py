"""Descriptor models: `load_model(name, checkpoint, device, precision).describe(images)`."""

from models.backbones import MODEL_NAMES
from models.base import DescriptorModel, InputSize, ModelSpec
from models.registry import load_model

__all__ = ["MODEL_NAMES", "DescriptorModel", "InputSize", "ModelSpec", "load_model"]
