"""Batches of photographs computed by threads that live as long as a worker, on a CPU or a GPU."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vladmap.models.aggregated import AggregatedModel
from vladmap.models.base import DescriptorModel
from vladmap.models.encoded import JpegDecoder, decoded_by_cpu, decoded_stack
from vladmap.models.gpu import Event, Gpu
from vladmap.models.memory import within_memory
from vladmap.models.recorded import OftenRecorded
from vladmap.photos.decoding.encoded import Encoded
from vladmap.retrieval.stored_patches import StoredPatches
from vladmap.schemas.rejects import PhotoError

log = logging.getLogger("vladmap")

Item = TypeVar("Item")

# On a CPU images are computed by twos, whatever the batch: small batches end together.
_CPU_BATCH = 4

# Threads that bring batches to a GPU: torchvision decodes for one of them at a time, and meanwhile
# another readies its files or resizes what was decoded.
_BRINGERS = 2

# Batches that are brought to a GPU, computed or copied back; more wait until one of them is done.
_ON_THE_WAY = _BRINGERS + 3


class Description(NamedTuple):
    """An image's global descriptor (D,), and its patch descriptors where they are wanted."""

    descriptor: NDArray[np.float32]
    patches: StoredPatches | None


Outcome = Description | PhotoError
"""Of an image that the device could not decode, why."""


@dataclass(eq=False)
class Batch:
    """Images of one `size` (H, W): `pixels` in their places of a stack, or files to be decoded.

    `opened` is how many images had come before its first.
    """

    size: tuple[int, int]
    opened: int
    pixels: NDArray[np.uint8] | None = None
    encoded: dict[int, Encoded] = field(default_factory=dict)
    count: int = 0
    started: float = 0.0
    future: Future[list[Outcome]] = field(default_factory=Future)


class _Brought(NamedTuple):
    """A batch's images where they are computed, or still in the CPU's memory if that had no room.

    `errors` says by place what could not be decoded, `there` when the images are.
    """

    stack: Tensor
    errors: dict[int, PhotoError]
    there: Event | None = None


class _Launched(NamedTuple):
    """What a device computes of some images, on its way to the CPU's memory."""

    packed: Tensor
    arrived: Event | None = None

    def bytes(self) -> NDArray[np.uint8]:
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.packed.numpy()


class Computer:
    """Computes batches in the order in which they come, some of them at a time.

    On a CPU `lanes` threads compute a batch each. On a GPU some threads bring batches to the
    device, one launches their computation and one waits for it: they stay, since each new thread
    pays a second for cuDNN's plans. `patch_size` (in cells of the feature map) is that of the patch
    descriptors, 0 for none; they come from the same pass through the network. Files are decoded on
    the device by `decoder`. `gpu` is that of the model's device unless it is given.
    """

    def __init__(
        self,
        model: DescriptorModel,
        batch_size: int,
        lanes: int,
        patch_size: int = 0,
        decoder: JpegDecoder | None = None,
        gpu: Gpu | None = None,
    ) -> None:
        self._model, self._decoder = model, decoder
        self._sizes = (patch_size,) if patch_size else ()
        whole = model if isinstance(model, AggregatedModel) else None
        self._device = whole.device if whole else torch.device("cpu")
        self._gpu = gpu or (None if self._device.type == "cpu" else Gpu(self._device))
        on_cpu = self._gpu is None
        self.batch_size = min(batch_size, _CPU_BATCH) if on_cpu else batch_size
        # What once did not fit the GPU's memory is not tried again: images computed together, and
        # those brought together.
        self._limit = self._fits = self.batch_size
        self._run = (
            OftenRecorded(
                lambda stack: whole.packed(stack, self._sizes),
                self.batch_size,
                self._gpu.recorder() if self._gpu else None,
            )
            if whole
            else None
        )
        self._bringing = None if on_cpu else ThreadPoolExecutor(_BRINGERS, "bring")
        self._computing = ThreadPoolExecutor(lanes if on_cpu else 1, "describe")
        self._waiting = None if on_cpu else ThreadPoolExecutor(1, "wait")
        self._room = threading.Semaphore(lanes + 1 if on_cpu else _ON_THE_WAY)
        self._latencies: deque[tuple[int, int]] = deque()
        self._on_cpu: deque[int] = deque()

    def host(self, height: int, width: int) -> NDArray[np.uint8]:
        """Memory (batch_size, H, W, 3) for the pixels of a batch."""
        shape = (self.batch_size, height, width, 3)
        return np.empty(shape, np.uint8) if self._gpu is None else self._gpu.host(shape).numpy()

    def start(self, batch: Batch) -> None:
        """Compute a batch; waits while as many as there is room for are on their way."""
        self._room.acquire()
        pool = self._bringing or self._computing
        try:
            pool.submit(self._guarded, batch, self._bring if self._bringing else self._describe)
        except BaseException as error:
            self._room.release()
            batch.future.set_exception(error)
            raise

    def taken_latencies(self) -> list[tuple[int, int]]:
        """(images, microseconds) of each batch computed since it was last asked."""
        return _taken(self._latencies)

    def taken_on_cpu(self) -> int:
        """Files that the device could not decode and the CPU did, since it was last asked."""
        return sum(_taken(self._on_cpu))

    def close(self) -> None:
        """End the threads, when what they are at is done."""
        for pool in (self._bringing, self._computing, self._waiting):
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)

    def _guarded(self, batch: Batch, step: Callable[..., None], *arguments: Any) -> None:
        """A step of a batch on a thread of its own; what it raises ends the batch."""
        try:
            step(batch, *arguments)
        except BaseException as error:
            self._end(batch, error)

    def _end(self, batch: Batch, outcome: list[Outcome] | BaseException) -> None:
        self._room.release()
        if isinstance(outcome, BaseException):
            batch.future.set_exception(outcome)
        else:
            self._latencies.append((batch.count, int(1e6 * (time.monotonic() - batch.started))))
            batch.future.set_result(outcome)

    @torch.inference_mode()
    def _describe(self, batch: Batch) -> None:
        """All of it in one thread: on a CPU."""
        batch.started = time.monotonic()
        stack, errors, _ = self._on_device(batch)
        if self._run is None:
            found = [Description(row, None) for row in self._model.describe(list(stack.numpy()))]
        else:
            found = self._arrived(batch, self._launches(stack))
        self._end(batch, [errors.get(place, one) for place, one in enumerate(found)])

    @torch.inference_mode()
    def _bring(self, batch: Batch) -> None:
        """Copy or decode a batch's images, beside what is computed of those before.

        Where the GPU has no room for all of them, even when nothing else is on its way, they stay
        in the CPU's memory, and as many go at a time as can be computed.
        """
        assert self._gpu is not None
        brought: _Brought | None = None
        if batch.count <= self._fits:
            brought = self._brought(batch)
            if brought is None:
                self._gpu.settle()
                brought = self._brought(batch)
            if brought is None:
                self._fits = min(self._fits, batch.count - 1)
                log.warning("describe: the GPU has no room for a batch: it goes in parts")
        self._computing.submit(self._guarded, batch, self._launch, brought or self._on_host(batch))

    def _brought(self, batch: Batch) -> _Brought | None:
        """A batch's images on the device; None where it has no room for them."""
        assert self._gpu is not None
        with contextlib.suppress(torch.OutOfMemoryError), self._gpu.bringing():
            stack, errors, _ = self._on_device(batch)
            return _Brought(stack, errors, self._gpu.mark())
        return None

    @torch.inference_mode()
    def _launch(self, batch: Batch, brought: _Brought) -> None:
        batch.started = time.monotonic()
        assert self._gpu is not None
        assert self._waiting is not None
        if brought.there is not None:
            self._gpu.after(brought.there)
        launches = self._launches(brought.stack, moved=brought.there is not None)
        self._waiting.submit(self._guarded, batch, self._await, brought, launches)

    def _await(self, batch: Batch, brought: _Brought, launches: list[_Launched]) -> None:
        # The images are held until here: their memory belongs to the stream that brought them,
        # which may use it again as soon as it is free, whatever still computes.
        found = self._arrived(batch, launches)
        self._end(batch, [brought.errors.get(place, one) for place, one in enumerate(found)])

    def _on_device(self, batch: Batch) -> _Brought:
        """(count, H, W, 3) uint8 on the device, and what could not be decoded."""
        if not batch.encoded:
            return _Brought(self._moved(_given(batch)), {})
        assert self._decoder is not None
        places = list(batch.encoded)
        stack, errors, on_cpu = decoded_stack(
            [*batch.encoded.values()], batch.size, self._decoder, self._device
        )
        if batch.pixels is not None:
            whole = self._moved(_given(batch))
            whole[torch.tensor(places, device=self._device)] = stack
            stack = whole
        self._on_cpu.append(on_cpu)
        return _Brought(stack, {places[place]: error for place, error in errors.items()})

    def _on_host(self, batch: Batch) -> _Brought:
        """The same in the CPU's memory, decoded there."""
        stack = torch.zeros(batch.count, *batch.size, 3, dtype=torch.uint8)
        if batch.pixels is not None:
            stack.copy_(_given(batch))
        errors: dict[int, PhotoError] = {}
        for place, picture in batch.encoded.items():
            try:
                stack[place] = decoded_by_cpu(picture, batch.size)
            except PhotoError as error:
                errors[place] = error
        self._on_cpu.append(len(batch.encoded))
        return _Brought(stack, errors)

    def _moved(self, pixels: Tensor) -> Tensor:
        return pixels if self._gpu is None else self._gpu.moved(pixels)

    def _launches(self, stack: Tensor, moved: bool = True) -> list[_Launched]:
        """What is computed of the images, as many of them at a time as the memory holds."""
        assert self._run is not None
        launches: list[_Launched] = []

        def launch(part: Tensor) -> list[None]:
            assert self._run is not None
            result = self._run(part if moved else self._moved(part))
            launches.append(
                _Launched(*self._gpu.fetched(result)) if self._gpu else _Launched(result)
            )
            return [None] * len(part)

        def launch_or_make_room(part: Tensor) -> list[None]:
            """Recordings go before the batch is halved: they hold memory even while none runs."""
            assert self._run is not None
            with contextlib.suppress(torch.OutOfMemoryError):
                return launch(part)
            if self._gpu is None or not self._run.give_up():
                # Half of them are tried next, and are not filled to more.
                self._run.shrink((len(part) + 1) // 2)
                raise torch.OutOfMemoryError("the GPU's memory is full")
            log.warning("describe: the GPU's memory is full: CUDA graphs are given up")
            self._gpu.settle()
            return launch(part)

        limit = within_memory(launch_or_make_room, stack, self._limit)[1]
        if limit < self._limit:
            log.warning("describe: the GPU has room for %d images at a time", limit)
            self._limit = limit
            self._run.shrink(limit)
        return launches

    def _arrived(self, batch: Batch, launches: list[_Launched]) -> list[Description]:
        assert isinstance(self._model, AggregatedModel)
        return [
            Description(*one)
            for launched in launches
            for one in self._model.unpacked(launched.bytes(), batch.size, self._sizes)
        ]


def _given(batch: Batch) -> Tensor:
    """The pixels (count, H, W, 3) of a batch; places of files have any."""
    assert batch.pixels is not None
    return torch.from_numpy(batch.pixels)[: batch.count]


def _taken(items: deque[Item]) -> list[Item]:
    """All of them, each to one of the threads that ask."""
    found: list[Item] = []
    with contextlib.suppress(IndexError):
        while True:
            found.append(items.popleft())
    return found
