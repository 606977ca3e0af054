"""Local features that a network finds: its settings, and weights that are loaded once."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from vladmap.features.base import LocalFeatures
from vladmap.features.packages import load_weights, need, packaged_weights


class NetworkExtractor(ABC):
    """Extracts features by a network whose trained weights an installed package brings.

    At most `max_features` of an image are kept, those above `detection_threshold`; its long side is
    reduced to `max_image_size` pixels first. It is pickled by its settings and safe to call from
    several threads, which share one network.

    Raises:
        ValueError: no feature may be kept, or images may be smaller than `smallest` pixels.
        UserError: one of `packages` is not installed.
    """

    title: ClassVar[str]
    """How errors call these features."""
    packages: ClassVar[tuple[str, ...]]
    """Modules that must be installed; the first brings `weights`."""
    weights: ClassVar[str]
    """The file of weights inside that package."""
    computed: ClassVar[frozenset[str]] = frozenset()
    """Buffers that the network computes itself, which are in no file."""
    smallest: ClassVar[int]

    def __init__(self, max_features: int, max_image_size: int, detection_threshold: float) -> None:
        if max_features < 1 or max_image_size < self.smallest:
            raise ValueError(f"max_features must be at least 1, max_image_size {self.smallest}")
        for package in self.packages:
            need(package, self.title)
        self.max_features = max_features
        self.max_image_size = max_image_size
        self.detection_threshold = detection_threshold
        self._network: torch.nn.Module | None = None
        self._lock = threading.Lock()

    @abstractmethod
    def extract(self, rgb: NDArray[np.uint8]) -> LocalFeatures:
        """As `LocalFeatureExtractor.extract` says."""

    @abstractmethod
    def _make(self) -> torch.nn.Module:
        """The network, without its weights."""

    def _load(self) -> torch.nn.Module:
        with self._lock:
            if self._network is None:
                network = self._make()
                weights = packaged_weights(self.packages[0], self.weights)
                load_weights(network, weights, self.computed, self.title)
                self._network = network.eval()
            return self._network

    def __reduce__(self) -> tuple[type[Any], tuple[int, int, float]]:
        return type(self), (self.max_features, self.max_image_size, self.detection_threshold)
