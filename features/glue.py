"""Matchers of the LightGlue family (Lindenberger et al., ICCV 2023): transformers that look at both
images at once, as kornia builds them."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional

from vladmap.features.base import LocalFeatures, Matches
from vladmap.features.packages import load_weights, need

_COMPUTED = {"confidence_thresholds"}


class Glue(ABC):
    """Matches of two images' features; on one processor the same for the same features.

    The time of a pair grows with the product of their numbers of features. A subclass says of which
    `features` they are, the `dimension` of their descriptors, and the network's `configuration` and
    weights. Raises UserError where a package is missing, or its weights are of another network.
    """

    name: ClassVar[str]
    features: ClassVar[str]
    dimension: ClassVar[int]
    package: ClassVar[str]
    """The module that brings the weights."""
    configuration: ClassVar[dict[str, Any]]
    min_inlier_share: float
    inliers_a_cosine: float

    def __init__(self) -> None:
        for module in (self.package, "kornia"):
            need(module, f"matches by {self.name}")
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
        matches = outcome["matches"][0].numpy().astype(np.uint32)
        return np.asarray(matches[np.argsort(matches[:, 0], kind="stable")])

    @abstractmethod
    def _weights(self) -> dict[str, torch.Tensor]:
        """The network's tensors by kornia's names."""

    def _extent(self, features: LocalFeatures) -> tuple[float, float]:
        """(width, height) in pixels that the network sees positions relative to: the image's; of an
        image of unknown size that of its features."""
        if features.size is not None:
            return features.size
        width, height = np.maximum(np.ceil(features.keypoints[:, :2].max(axis=0)), 1.0)
        return float(width), float(height)

    def _image(self, features: LocalFeatures) -> dict[str, torch.Tensor]:
        """One image as the network reads it."""
        places = torch.from_numpy(np.ascontiguousarray(features.keypoints[:, :2], np.float32))
        rows = torch.from_numpy(np.ascontiguousarray(features.descriptors, np.float32))
        return {
            "keypoints": places[None],
            "descriptors": functional.normalize(rows, dim=1)[None],
            "image_size": torch.tensor(self._extent(features))[None],
        }

    def _load(self) -> torch.nn.Module:
        with self._lock:
            if self._network is None:
                from kornia.feature.lightglue import LightGlue

                network = LightGlue(features=None, **self.configuration)  # type: ignore[arg-type]
                load_weights(network, self._weights(), _COMPUTED, f"matches by {self.name}")
                self._network = network.eval()
            return self._network

    def __reduce__(self) -> tuple[type[Glue], tuple[()]]:
        return type(self), ()
