"""Descriptor models made of a backbone, an aggregation of its feature map, and PCA-whitening."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vladmap.models.aggregations.base import Aggregation
from vladmap.models.aggregations.patches import patch_centres
from vladmap.models.base import DescriptorModel, Floats, ModelSpec, Pixels, batches, digest
from vladmap.models.local import ConvolutionalFeatures
from vladmap.models.whitening import Whitening, WhiteningLayer, whitening_arrays
from vladmap.retrieval.stored_patches import LARGEST, Patches, StoredPatches
from vladmap.weights.devices import convolutions

Number = TypeVar("Number", np.float32, np.int8)


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
        self._cells: dict[tuple[int, int], tuple[int, int]] = {}  # of the map, by image size

    def compile(self) -> None:
        """Compile the network by torch.compile, anew for each of the first input sizes.

        Needs a C++ compiler, and on a GPU Triton; there all steps from the pixels to the descriptor
        are compiled. Descriptors may change in their last digits.
        """
        if self._features.device.type == "cpu":
            self._features.compile()
        else:
            self._whole = torch.compile(self._whole, dynamic=False)  # type: ignore[method-assign]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._features.device

    @torch.inference_mode()
    def describe(self, images: Sequence[Pixels]) -> Floats:
        descriptors = np.empty((len(images), self.spec.dimension), np.float32)
        for positions, pixels in self._batches(images):
            moved = self._features.moved(pixels)
            descriptors[positions] = self._outputs(moved, ())[0].cpu().numpy()[: len(pixels)]
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
        if not sizes or not self._aggregation.has_patches:
            raise ValueError(f"the model {self.spec.name} has no patch descriptors")
        descriptors = np.empty((len(images), self.spec.dimension), np.float32)
        patch_rows: list[list[Floats]] = [[] for _ in sizes]
        cells: set[tuple[int, int]] = set()
        for positions, pixels in self._batches(images):
            pooled, patches, cell = self._outputs(self._features.moved(pixels), sizes)
            cells.add(cell)
            if len(cells) > 1:
                raise ValueError("patch descriptors need images of one size: group them by size")
            descriptors[positions] = pooled.cpu().numpy()[: len(pixels)]
            for rows, part in zip(patch_rows, patches, strict=True):
                rows.append(part.cpu().numpy()[: len(pixels)])
        if not cells:
            raise ValueError("there are no images to describe patches of")
        centres = self._centres(cells.pop(), sizes)
        return descriptors, Patches([np.concatenate(rows) for rows in patch_rows], centres)

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

    @torch.inference_mode()
    def packed(self, stack: Tensor, patch_sizes: tuple[int, ...]) -> Tensor:
        """Descriptors of a stack of images, and of their patches in int8, in one tensor of bytes.

        (B, H, W, 3) uint8 at the input size, on the device -> (B, N), for one copy from the device;
        `unpacked` reads it. A CPU takes the images some at a time.
        """
        parts = [self._packed(part, patch_sizes) for part in stack.split(self._features.batch_size)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def unpacked(
        self, packed: NDArray[np.uint8], size: tuple[int, int], patch_sizes: tuple[int, ...]
    ) -> list[tuple[Floats, StoredPatches | None]]:
        """(D,) and the patches, N = 1, of each image whose bytes `packed` (B, N) has.

        `size` (H, W) is that of the images.
        """
        descriptors, rest = _taken(packed, 4 * self.spec.dimension, np.float32)
        if not patch_sizes:
            return [(row, None) for row in descriptors]
        centres = self._centres(self._cells[size], patch_sizes)
        parts = []
        for centre in centres:
            scales, rest = _taken(rest, 4 * len(centre), np.float32)
            rows, rest = _taken(rest, len(centre) * self._patch_dimension, np.int8)
            parts.append((rows.reshape(len(rows), len(centre), -1), scales))
        return [
            (
                row,
                StoredPatches(
                    [rows[n : n + 1] for rows, _ in parts],
                    centres,
                    [scales[n : n + 1] for _, scales in parts],
                ),
            )
            for n, row in enumerate(descriptors)
        ]

    def network(self) -> nn.Module:
        """(B, H, W, 3) uint8 at the input size -> (B, D), all in one module, to export."""
        return _Network(self)

    @property
    def stride(self) -> int:
        """Pixels between neighbouring cells of the feature map."""
        return self._features.stride

    @property
    def _patch_dimension(self) -> int:
        layer = self._whiten_patches
        return len(layer.bias) if layer else self._aggregation.dimension

    def _packed(self, stack: Tensor, patch_sizes: tuple[int, ...]) -> Tensor:
        pooled, patches, cells = self._outputs(stack, patch_sizes)
        columns = [pooled.contiguous().view(torch.uint8)]
        for rows in patches:
            small, scales = _quantised(rows)
            columns += [scales.view(torch.uint8), small.flatten(1).view(torch.uint8)]
        self._cells[stack.shape[1], stack.shape[2]] = cells
        return torch.cat(columns, 1) if len(columns) > 1 else columns[0]

    def _outputs(
        self, stack: Tensor, patch_sizes: tuple[int, ...]
    ) -> tuple[Tensor, list[Tensor], tuple[int, int]]:
        with convolutions():
            return self._whole(stack, patch_sizes)

    def _whole(
        self, stack: Tensor, patch_sizes: tuple[int, ...]
    ) -> tuple[Tensor, list[Tensor], tuple[int, int]]:
        """(B, H, W, 3) uint8 -> (B, D), (B, P, d) of each patch size, cells (h, w) of the map."""
        outputs = self._features.outputs(stack)
        pooled = self._aggregation(*outputs)
        whiten, layer = self._whiten, self._whiten_patches
        pooled = functional.normalize(pooled, dim=1) if whiten is None else whiten(pooled)
        patches: list[Tensor] = []
        if patch_sizes:
            weight, bias = (layer.weight, layer.bias) if layer else (None, None)
            patches = self._aggregation.patches(outputs[0], patch_sizes, weight, bias)
        return pooled, patches, (outputs[0].shape[2], outputs[0].shape[3])

    def _centres(self, cells: tuple[int, int], sizes: tuple[int, ...]) -> list[Floats]:
        return [patch_centres(*cells, size, self.stride).numpy() for size in sizes]

    def _batches(self, images: Sequence[Pixels]) -> Iterator[tuple[list[int], Pixels]]:
        return batches(images, self._features.input_size, self._features.batch_size)


class _Network(nn.Module):
    """The computation of a model from pixels to descriptors."""

    def __init__(self, model: AggregatedModel) -> None:
        super().__init__()
        self._model = model
        # By name, so that an export has their weights.
        self.backbone, self.aggregation = model._features.network, model._aggregation
        self.whitening = model._whiten

    def forward(self, pixels: Tensor) -> Tensor:
        return self._model._whole(pixels, ())[0]


def _taken(
    packed: NDArray[np.uint8], count: int, dtype: type[Number]
) -> tuple[NDArray[Number], NDArray[np.uint8]]:
    """The first `count` bytes of each row as numbers, and the bytes after them."""
    return np.ascontiguousarray(packed[:, :count]).view(dtype), packed[:, count:]


def _quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """`retrieval.stored_patches.quantise`, to the last bit, where the descriptors are."""
    largest = rows.abs().amax(-1)
    # A number in place of the ones would be copied to a GPU, which ends a recording.
    scale = torch.where(largest > 0, largest / LARGEST, torch.ones_like(largest))
    return torch.round(rows / scale[..., None]).to(torch.int8), scale


def _layer(whitening: Whitening | None, device: torch.device) -> WhiteningLayer | None:
    return None if whitening is None else WhiteningLayer(whitening).to(device)
