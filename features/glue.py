"""Matchers of the LightGlue family (Lindenberger et al., ICCV 2023): transformers that attend to
the features of both images, as kornia implements them."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional

from vladmap.features.base import LocalFeatures, Matches
from vladmap.features.packages import load_weights, need
from vladmap.weights.devices import CPU, torch_device

_COMPUTED = {"confidence_thresholds"}


class Glue(ABC):
    """Matches the features of two images by a network on `device`.

    On one machine, equal features give equal matches. The time of a pair grows with the product of
    its two numbers of features. A subclass names the `features` that it matches, the `dimension` of
    their descriptors, the network's `configuration` and its weights. Raises UserError where a
    package or the device is missing, or the weights are of another network.
    """

    name: ClassVar[str]
    features: ClassVar[str]
    dimension: ClassVar[int]
    package: ClassVar[str]
    """The module that brings the weights."""
    configuration: ClassVar[dict[str, Any]]
    min_inlier_share: float
    inliers_a_cosine: float

    def __init__(self, device: str = CPU) -> None:
        for module in (self.package, "kornia"):
            need(module, f"matches by {self.name}")
        self.device = torch_device(device)
        self._network: torch.nn.Module | None = None
        self._lock = threading.Lock()

    @torch.inference_mode()
    def match(self, a: LocalFeatures, b: LocalFeatures) -> Matches:
        """As `Matcher.match` says.

        Raises ValueError for descriptors of another length.
        """
        if any(each.descriptors.shape[1:] != (self.dimension,) for each in (a, b)):
            raise ValueError(f"{self.name} matches the {self.dimension} numbers of {self.features}")
        if len(a) == 0 or len(b) == 0:
            return np.zeros((0, 2), np.uint32)
        outcome = self._load()({"image0": self._image(a), "image1": self._image(b)})
        matches = outcome["matches"][0].cpu().numpy().astype(np.uint32)
        return np.asarray(matches[np.argsort(matches[:, 0], kind="stable")])

    @abstractmethod
    def _weights(self) -> dict[str, torch.Tensor]:
        """The network's tensors by kornia's names."""

    def _extent(self, features: LocalFeatures) -> tuple[float, float]:
        """(width, height) in pixels by which positions are normalised: the image's size, or the
        extent of the keypoints where that is unknown."""
        if features.size is not None:
            return features.size
        width, height = np.maximum(np.ceil(features.keypoints[:, :2].max(axis=0)), 1.0)
        return float(width), float(height)

    def _image(self, features: LocalFeatures) -> dict[str, torch.Tensor]:
        """The features of one image as the network's input, on its device."""
        places = torch.from_numpy(np.ascontiguousarray(features.keypoints[:, :2], np.float32))
        rows = torch.from_numpy(np.ascontiguousarray(features.descriptors, np.float32))
        inputs = {
            "keypoints": places,
            "descriptors": functional.normalize(rows, dim=1),
            "image_size": torch.tensor(self._extent(features)),
        }
        return {name: tensor[None].to(self.device) for name, tensor in inputs.items()}

    def _load(self) -> torch.nn.Module:
        with self._lock:
            if self._network is None:
                from kornia.feature.lightglue import LightGlue

                network = LightGlue(features=None, **self.configuration)  # type: ignore[arg-type]
                load_weights(network, self._weights(), _COMPUTED, f"matches by {self.name}")
                self._network = network.eval().to(self.device)
            return self._network

    def __reduce__(self) -> tuple[type[Glue], tuple[str]]:
        return type(self), (self.device.type,)
