"""Descriptor models made of a backbone, an aggregation of its feature map, and PCA-whitening."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vladmap.models.aggregations.base import Aggregation
from vladmap.models.aggregations.patches import patch_centres
from vladmap.models.base import DescriptorModel, Floats, ModelSpec, Pixels, batches, digest
from vladmap.models.local import ConvolutionalFeatures
from vladmap.models.whitening import Whitening, WhiteningLayer, whitening_arrays
from vladmap.retrieval.stored_patches import Patches
from vladmap.weights.devices import convolutions


class AggregatedModel(DescriptorModel):
    """Local `features`, aggregated by `aggregation`, and whitened where there is a `whitening`.

    Where the aggregation has patches, `patch_sizes` (in cells of the feature map) are those that it
    describes; `patch_whitening` whitens these descriptors, `whitening` where it is None.
    """

    def __init__(
        self,
        name: str,
        features: ConvolutionalFeatures,
        aggregation: Aggregation,
        whitening: Whitening | None = None,
        patch_sizes: tuple[int, ...] = (),
        patch_whitening: Whitening | None = None,
    ) -> None:
        self._features = features
        arrays = {key: value.numpy() for key, value in aggregation.state_dict().items()}
        arrays |= whitening_arrays(whitening)
        arrays |= whitening_arrays(patch_whitening, "patch_whitening")
        self.spec = ModelSpec(
            name=name,
            dimension=len(whitening.bias) if whitening else aggregation.dimension,
            patch_sizes=patch_sizes,
            input_size=features.input_size,
            fingerprint=digest(f"{name} 1 {aggregation.card()} {features.digest}", arrays),
        )
        self._aggregation = aggregation.to(features.device)
        self._whiten = _layer(whitening, features.device)
        self._whiten_patches = _layer(patch_whitening or whitening, features.device)
        if self._whiten_patches:
            # This product alone takes about as long as the backbone.
            self._whiten_patches.weight = self._whiten_patches.weight.to(features.precision)

    def compile(self) -> None:
        """Compile the backbone by torch.compile, anew for each input size.

        Needs a C++ compiler, and on a GPU Triton. Descriptors may change in their last digits.
        """
        self._features.compile()

    @torch.inference_mode()
    def describe(self, images: Sequence[Pixels]) -> Floats:
        descriptors = np.empty((len(images), self.spec.dimension), np.float32)
        for positions, pixels in self._batches(images):
            descriptors[positions] = self._pooled(*self._features.outputs(pixels)).cpu().numpy()
        return descriptors

    def describe_patches(self, images: Sequence[Pixels]) -> Patches:
        return self.describe_with_patches(images)[1]

    @torch.inference_mode()
    def describe_with_patches(
        self, images: Sequence[Pixels], patch_sizes: tuple[int, ...] | None = None
    ) -> tuple[Floats, Patches]:
        """The results of `describe` and `describe_patches` from one forward pass.

        `patch_sizes`, in cells, are by default the model's own. Raises ValueError as
        `describe_patches` does, and where there are no images.
        """
        sizes = self.spec.patch_sizes if patch_sizes is None else patch_sizes
        aggregation = self._aggregation
        if not sizes or not aggregation.has_patches:
            raise ValueError(f"the model {self.spec.name} has no patch descriptors")
        descriptors = np.empty((len(images), self.spec.dimension), np.float32)
        patch_rows: list[list[Floats]] = [[] for _ in sizes]
        cells: set[tuple[int, int]] = set()
        layer = self._whiten_patches
        weight, bias = (layer.weight, layer.bias) if layer else (None, None)
        for positions, pixels in self._batches(images):
            outputs = self._features.outputs(pixels)
            maps = outputs[0]
            cells.add((maps.shape[2], maps.shape[3]))
            if len(cells) > 1:
                raise ValueError("patch descriptors need images of one size: group them by size")
            descriptors[positions] = self._pooled(*outputs).cpu().numpy()
            patches = aggregation.patches(maps, sizes, weight, bias)
            for rows, part in zip(patch_rows, patches, strict=True):
                rows.append(part.cpu().numpy())
        if not cells:
            raise ValueError("there are no images to describe patches of")
        height, width = cells.pop()
        centres = [patch_centres(height, width, size, self._features.stride) for size in sizes]
        return descriptors, Patches(
            [np.concatenate(rows) for rows in patch_rows], [centre.numpy() for centre in centres]
        )

    def describe_each(
        self, images: Sequence[Pixels], patch_sizes: tuple[int, ...]
    ) -> list[tuple[Floats, Patches]]:
        """The descriptor (D,) and the patches (N = 1) of each image; images may differ in size."""
        by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for position, image in enumerate(images):
            by_size[self.spec.input_size.resized(image.shape[1], image.shape[0])].append(position)
        by_position: dict[int, tuple[Floats, Patches]] = {}
        for positions in by_size.values():
            rows, patches = self.describe_with_patches(
                [images[position] for position in positions], patch_sizes
            )
            for n, position in enumerate(positions):
                one = [part[n : n + 1] for part in patches.descriptors]
                by_position[position] = rows[n], Patches(one, patches.centres)
        return [by_position[position] for position in range(len(images))]

    @property
    def stride(self) -> int:
        """Pixels between neighbouring cells of the feature map."""
        return self._features.stride

    def _batches(self, images: Sequence[Pixels]) -> Iterator[tuple[list[int], Pixels]]:
        return batches(images, self._features.input_size, self._features.batch_size)

    def _pooled(self, *outputs: Tensor) -> Tensor:
        with convolutions(exact=True):
            pooled = self._aggregation(*outputs)
        return functional.normalize(pooled, dim=1) if self._whiten is None else self._whiten(pooled)


def _layer(whitening: Whitening | None, device: torch.device) -> WhiteningLayer | None:
    return None if whitening is None else WhiteningLayer(whitening).to(device)
