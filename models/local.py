"""Local descriptors of images: vocabularies are learnt from them, aggregations combine them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vladmap.models.backbones.view import Resampling
from vladmap.models.base import Floats, Pixels, batches, digest, resize
from vladmap.models.kinds import PRECISION_NAMES
from vladmap.models.recorded import filled
from vladmap.schemas.rejects import UserError
from vladmap.weights.devices import convolutions, torch_device
from vladmap.weights.preprocessing import InputSize, Preprocessing, Size

PRECISIONS: dict[str, torch.dtype] = {name: getattr(torch, name) for name in PRECISION_NAMES}

# Measured on two cores: larger batches exceed the caches and halve the rate.
_CPU_BATCH = 2


class LocalDescriptors(Protocol):
    """A source of local descriptors; `digest` covers everything that their values depend on."""

    dimension: int
    input_size: Size
    digest: str

    def extract(self, images: Sequence[Pixels]) -> list[Floats]:
        """One (n, D) float32 array of unit-norm rows for each (H, W, 3) uint8 image."""


class ConvolutionalFeatures:
    """The feature map of a backbone; each cell is one local descriptor.

    `network` maps (N, 3, H, W) images, normalised as `preprocessing` says and then resized by
    `resampling` if there is one, to (N, `channels`, h, w) at its `stride`, possibly with a class
    token. `precision` is that of its weights and activations; a network with a method `lower` keeps
    its most sensitive layers in float32, and the output is converted to float32. CPUs have no fast
    float16 arithmetic: on a CPU, float16 rounds the weights and computes in float32. TF32 is
    switched off on a GPU.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        weights: Mapping[str, Tensor],
        preprocessing: Preprocessing,
        device: str = "cpu",
        precision: str = "float32",
        resampling: Resampling | None = None,
    ) -> None:
        """`weights` are those that the network was built from; the digest is computed from them."""
        if precision not in PRECISIONS:
            raise UserError(f"unknown precision {precision!r}: choose one of {[*PRECISIONS]}")
        self.device = torch_device(device)
        self.preprocessing = preprocessing
        self.input_size = preprocessing.size
        self.dimension: int = network.channels  # type: ignore[assignment]
        self.stride: int = network.stride  # type: ignore[assignment]
        mean, std = preprocessing.mean, preprocessing.std
        arrays = {key: tensor.numpy() for key, tensor in weights.items()}
        self.digest = digest(f"{name} 2 mean {mean} std {std} {self.input_size}", arrays)
        self._resampling = resampling
        dtype = PRECISIONS[precision]
        lower = getattr(network, "lower", network.to)
        network = lower(dtype).eval().requires_grad_(False)
        if dtype == torch.float16 and self.device.type == "cpu":
            network, dtype = network.float(), torch.float32
        self._dtype = next(network.parameters()).dtype
        self.precision = dtype
        self._network = network.to(self.device).to(memory_format=torch.channels_last)
        self._mean = 255 * torch.tensor(mean, device=self.device)[:, None, None]
        self._scale = 1 / (255 * torch.tensor(std, device=self.device)[:, None, None])
        self._copies = torch.Stream(self.device) if self.device.type != "cpu" else None

    @property
    def batch_size(self) -> int:
        """Images in one forward pass; on a GPU the number is not limited."""
        return _CPU_BATCH if self.device.type == "cpu" else 1 << 30

    @property
    def network(self) -> nn.Module:
        """The backbone itself, without what normalises and resamples images before it."""
        return self._network

    def compile(self) -> None:
        """Compile the network for each shape of its input, up to torch's limit of eight.

        Shapes are not left variable: compiling for variable shapes did not end when it was tried.
        """
        self._network.compile(dynamic=False)

    @torch.inference_mode()
    def maps(self, pixels: Pixels) -> Tensor:
        """(B, H, W, 3) uint8 at the input size -> (B, D, h, w) float32 on the device."""
        with convolutions():
            return self.outputs(self.moved(pixels))[0][: len(pixels)]

    def outputs(self, stack: Tensor) -> tuple[Tensor, ...]:
        """(maps,), or (maps, class tokens (B, D)) where the network has a class token.

        `stack` is (B, H, W, 3) uint8 at the input size, on the device. Callers run this within
        `convolutions`; it may be compiled.
        """
        x = (stack.permute(0, 3, 1, 2).float() - self._mean) * self._scale
        if self._resampling is not None:
            x = self._resampling(x)
        outputs = self._network(x.to(self._dtype))
        return tuple(
            each.float() for each in (outputs if isinstance(outputs, tuple) else [outputs])
        )

    def moved(self, pixels: Pixels) -> Tensor:
        """`pixels` on the device, on a GPU `filled`; it copies pinned memory while it computes for
        others."""
        stack = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
        if self._copies is None:
            return stack
        with self._copies:
            moved = stack.pin_memory().to(self.device, non_blocking=True)
        computing = torch.accelerator.current_stream(self.device)
        computing.wait_stream(self._copies)
        moved.record_stream(computing)
        return filled(moved, self.batch_size)

    def extract(self, images: Sequence[Pixels]) -> list[Floats]:
        extracted: list[Floats] = [np.empty((0, self.dimension), np.float32)] * len(images)
        for positions, pixels in batches(images, self.input_size, self.batch_size):
            local = functional.normalize(self.maps(pixels).flatten(2), dim=1).transpose(1, 2)
            for position, rows in zip(positions, local.cpu().numpy(), strict=True):
                extracted[position] = rows
        return extracted


class RootSiftFeatures:
    """RootSIFT (Arandjelovic & Zisserman, "Three things everyone should know", CVPR 2012)."""

    dimension = 128
    _LARGEST = 640
    input_size: Size = InputSize(smallest=320, largest=_LARGEST)
    max_features = 2048

    def __init__(self) -> None:
        from vladmap.features.rootsift import RootSift

        self._extractor = RootSift(max_features=self.max_features, max_image_size=self._LARGEST)
        self.digest = digest(f"rootsift 1 {self.max_features} {self.input_size}", {})

    def extract(self, images: Sequence[Pixels]) -> list[Floats]:
        extracted = []
        for image in images:
            size = self.input_size.target(image.shape[1], image.shape[0])
            rows = self._extractor.extract(resize(image, size)).descriptors.astype(np.float32)
            # COLMAP stores 512 times the square roots, rounded: bring rows back to unit length.
            norms = np.linalg.norm(rows, axis=1, keepdims=True)
            extracted.append(rows / np.maximum(norms, np.float32(1e-12)))
        return extracted


def sample(
    features: LocalDescriptors, images: Sequence[Pixels], per_image: int, seed: int
) -> Floats:
    """At most `per_image` local descriptors of each image, drawn without replacement: (M, D).

    The draw depends on the seed and the image's pixels alone, so that many workers together draw
    the same sample as one.
    """
    drawn = [np.empty((0, features.dimension), np.float32)]
    for image, rows in zip(images, features.extract(images), strict=True):
        content = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest()
        generator = np.random.default_rng([seed, int.from_bytes(content, "little")])
        chosen = generator.permutation(len(rows))[:per_image]
        drawn.append(rows[np.sort(chosen)])
    return np.concatenate(drawn)
