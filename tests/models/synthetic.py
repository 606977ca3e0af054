"""Seeded weights and images in the shapes that the models take."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vladmap.models.backbones import vgg
from vladmap.models.backbones.efficientnet_lite import pretrained_path, shapes


def photographs(count: int, width: int, height: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Smooth colourful images, none like another: (height, width, 3)."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (count, 12, 16, 3), dtype=np.uint8)
    return [
        np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
        for image in coarse
    ]


def lite0_state() -> dict[str, Tensor]:
    state = torch.load(pretrained_path(), weights_only=True)
    return {name: state[name] for name in shapes()}


def vgg16_state(seed: int = 0) -> dict[str, Tensor]:
    """Weights of VGG16's convolutions by number, scaled so that activations keep their size."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in vgg.shapes().items():
        scale = (2 / (9 * shape[1])) ** 0.5 if len(shape) == 4 else 0.01
        state[name] = scale * torch.randn(shape, generator=generator)
    return state


def pytorch_netvlad_state(clusters: int, *, bias: bool, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed + 1)
    state = {f"encoder.{name}": tensor for name, tensor in vgg16_state(seed).items()}
    state["pool.centroids"] = 0.05 * torch.randn(clusters, 512, generator=generator)
    state["pool.conv.weight"] = 3 * torch.randn(clusters, 512, 1, 1, generator=generator)
    if bias:
        state["pool.conv.bias"] = torch.randn(clusters, generator=generator)
    return state


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()
