"""Descriptors of a model in training, with a cache of the outputs of its frozen stages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from torch import Tensor

from vladmap.models.base import Pixels, batches
from vladmap.models.training.trainable import TrainableModel
from vladmap.weights.preprocessing import Size

_TOGETHER = 8  # measured on a CPU: the same from 4 to 16

Prepare = Callable[[Tensor, list[int]], Tensor]
"""A change to (B, H, W, 3) uint8 images, given their positions, before they are described."""


def as_they_are(images: Tensor, positions: list[int]) -> Tensor:
    return images


class Describer:
    """Describes images by key, without pixels where the frozen stages' output is cached.

    The cache holds at most `memory` bytes of feature maps in main memory. With a cache, every image
    goes through the frozen stages on its own, so that its map is the same to the last bit whenever
    it is computed; on a CPU that is not slower.
    """

    def __init__(self, model: TrainableModel, memory: int = 0) -> None:
        self._model = model
        self.keeps = memory > 0 and model.apart
        self._free_bytes = memory
        self._cache: dict[Hashable, Tensor] = {}

    def unknown(self, keys: Sequence[Hashable | None]) -> list[int]:
        """Positions of the keys whose pixels `describe` needs."""
        return [n for n, key in enumerate(keys) if key is None or key not in self._cache]

    def describe(
        self,
        keys: Sequence[Hashable | None],
        pixels: Mapping[int, Pixels],
        size: Size,
        prepare: Prepare = as_they_are,
    ) -> Tensor:
        """(B, D) descriptors on the model's device, with their graph for gradients.

        `pixels` holds the (H, W, 3) uint8 images of the positions that were `unknown`. Equal keys
        mean equal pictures of equal size; images with the key None are not cached.
        """
        positions = sorted(pixels)
        images = [pixels[position] for position in positions]
        maps: dict[int, Tensor] = {}
        parts: list[Tensor] = []
        places: list[int] = []
        for rows, stack in batches(images, size, 1 if self.keeps else self._model.at_once):
            chosen = [positions[row] for row in rows]
            prepared = prepare(torch.from_numpy(stack).to(self._model.device), chosen)
            frozen = self._model.frozen(prepared)
            if self.keeps:
                maps[chosen[0]] = self._keep(keys[chosen[0]], frozen)
            else:
                parts.append(self._model.learning(frozen))
                places += chosen
        if self.keeps:
            by_shape: dict[torch.Size, list[int]] = defaultdict(list)
            for n, key in enumerate(keys):
                if n not in maps:
                    maps[n] = self._cache[key]
                by_shape[maps[n].shape].append(n)
            for members in by_shape.values():
                together = torch.cat([maps[n] for n in members]).to(self._model.device)
                parts += [self._model.learning(part) for part in together.split(_TOGETHER)]
                places += members
        order = torch.tensor(places).argsort().to(self._model.device)
        return torch.cat(parts)[order]

    def _keep(self, key: Hashable | None, frozen: Tensor) -> Tensor:
        size = frozen.numel() * frozen.element_size()
        frozen = frozen.cpu()
        if key is not None and size <= self._free_bytes:
            self._free_bytes -= size
            self._cache[key] = frozen
        return frozen
