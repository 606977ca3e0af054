"""Extractors of local features by a network: their settings, and weights that are loaded once."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vladmap.features.base import LocalFeatures, shrink
from vladmap.features.packages import load_weights, need, packaged_weights
from vladmap.weights.devices import CPU, torch_device


class NetworkExtractor(ABC):
    """Extracts features by a network whose trained weights come with an installed package.

    At most `max_features` of an image are kept, those above `detection_threshold`; its long side is
    reduced to `max_image_size` pixels first. The network runs on `device`. The extractor is pickled
    by its settings and safe to call from several threads, which share one network.

    Raises:
        ValueError: `max_features` is below 1, or `max_image_size` below `smallest`.
        UserError: one of `packages` is not installed, or there is no such device.
    """

    title: ClassVar[str]
    """The name of these features in error messages."""
    packages: ClassVar[tuple[str, ...]]
    """Modules that must be installed; the first brings `weights`."""
    weights: ClassVar[str]
    """The file of weights inside that package."""
    computed: ClassVar[frozenset[str]] = frozenset()
    """Buffers that the network computes itself, which are in no file."""
    smallest: ClassVar[int]
    """The least long side in pixels that the network takes."""

    def __init__(
        self, max_features: int, max_image_size: int, detection_threshold: float, device: str = CPU
    ) -> None:
        if max_features < 1 or max_image_size < self.smallest:
            raise ValueError(f"max_features must be at least 1, max_image_size {self.smallest}")
        for package in self.packages:
            need(package, self.title)
        self.max_features = max_features
        self.max_image_size = max_image_size
        self.detection_threshold = detection_threshold
        self.device = torch_device(device)
        self._network: torch.nn.Module | None = None
        self._lock = threading.Lock()

    def extract(self, rgb: NDArray[np.uint8]) -> LocalFeatures:
        """As `LocalFeatureExtractor.extract` says."""
        return self.extract_batch([rgb])[0]

    @abstractmethod
    def extract_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[LocalFeatures]:
        """As `LocalFeatureExtractor.extract_batch` says."""

    @abstractmethod
    def _make(self) -> torch.nn.Module:
        """The network, without its weights."""

    def _stack(self, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Images of one size as (B, 3, H, W) float32 numbers from 0 to 1 on the device, their long
        side at most `max_image_size`."""
        small = [shrink(Image.fromarray(image), self.max_image_size)[0] for image in images]
        pixels = torch.from_numpy(np.stack([np.array(image) for image in small])).to(self.device)
        return pixels.permute(0, 3, 1, 2).contiguous().float() / 255.0

    def _load(self) -> torch.nn.Module:
        with self._lock:
            if self._network is None:
                network = self._make()
                weights = packaged_weights(self.packages[0], self.weights)
                load_weights(network, weights, self.computed, self.title)
                self._network = network.eval().to(self.device)
            return self._network

    def __reduce__(self) -> tuple[type[Any], tuple[int, int, float, str]]:
        settings = (self.max_features, self.max_image_size, self.detection_threshold)
        return type(self), (*settings, self.device.type)
