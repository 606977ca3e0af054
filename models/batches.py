"""Descriptors of a stream of photographs, in batches that several threads compute."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from vladmap.models.aggregated import AggregatedModel
from vladmap.models.base import DescriptorModel
from vladmap.models.memory import within_memory
from vladmap.retrieval.stored_patches import StoredPatches, stored

Item = TypeVar("Item")


class Description(NamedTuple):
    """An image's global descriptor (D,), and its patch descriptors or None."""

    descriptor: NDArray[np.float32]
    patches: StoredPatches | None


class Picture(Protocol):
    """Anything with the pixels of a photograph, (H, W, 3) uint8, None where it cannot be read."""

    @property
    def pixels(self) -> NDArray[np.uint8] | None: ...


AnyPicture = TypeVar("AnyPicture", bound=Picture)


class BatchDescriber:
    """Describes photographs with one model.

    `lanes` threads compute one batch each at the same time. `patch_size` (in cells of the feature
    map) is that of the patch descriptors, 0 for none; they come from the same forward pass.
    """

    def __init__(
        self, model: DescriptorModel, batch_size: int, lanes: int, patch_size: int = 0
    ) -> None:
        self._model, self._batch_size, self._patch_size = model, batch_size, patch_size
        self.lanes = lanes
        # A batch that once did not fit the GPU's memory is not tried again.
        self._limit = batch_size
        self.latencies: deque[tuple[int, int]] = deque()
        """(images, microseconds) of each batch computed; the caller removes the entries."""

    def describe(
        self, pictures: Iterable[AnyPicture]
    ) -> Iterator[tuple[AnyPicture, Description | None]]:
        """Each picture, in order, with its description; None for one without pixels.

        Pictures are taken from the iterable while batches are being computed.
        """
        with ThreadPoolExecutor(self.lanes) as pool:
            waiting: deque[tuple[list[AnyPicture], Future[list[Description]]]] = deque()
            for batch in _batches(pictures, self._batch_size):
                images = [picture.pixels for picture in batch if picture.pixels is not None]
                waiting.append((batch, pool.submit(self._timed, images)))
                if len(waiting) > self.lanes:
                    yield from _joined(*waiting.popleft())
            while waiting:
                yield from _joined(*waiting.popleft())

    def _timed(self, images: Sequence[NDArray[np.uint8]]) -> list[Description]:
        started = time.monotonic()
        descriptions, batch_size = within_memory(self._compute, images, self._limit)
        self._limit = min(self._limit, batch_size)  # another lane may have lowered it further
        self.latencies.append((len(images), int(1e6 * (time.monotonic() - started))))
        return descriptions

    def _compute(self, images: Sequence[NDArray[np.uint8]]) -> Iterable[Description]:
        model, size = self._model, self._patch_size
        if not size:
            return (Description(row, None) for row in model.describe(images))
        assert isinstance(model, AggregatedModel)  # the build's options allow no other
        # Converted to int8 at once: a shard's patches stay in memory until its table is written.
        return (
            Description(row, stored(patches))
            for row, patches in model.describe_each(images, (size,))
        )


def _joined(
    batch: list[AnyPicture], future: Future[list[Description]]
) -> Iterator[tuple[AnyPicture, Description | None]]:
    descriptions = iter(future.result())
    for picture in batch:
        yield picture, None if picture.pixels is None else next(descriptions)


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
