"""Descriptors of photographs in batches that are filled across all that ask for them."""

from __future__ import annotations

import contextlib
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
from vladmap.models.base import DescriptorModel, Pixels, resize
from vladmap.models.encoded import JpegDecoder, decoded_stack
from vladmap.models.memory import within_memory
from vladmap.models.recorded import OftenRecorded, cuda_recorder
from vladmap.photos.decoding.encoded import Encoded
from vladmap.retrieval.stored_patches import StoredPatches
from vladmap.schemas.rejects import PhotoError

Item = TypeVar("Item")

# On a CPU images are computed by twos, whatever the batch: small batches end together.
_CPU_BATCH = 4

# Images that come after the first of a batch, in batches, before it is computed as it is.
_PATIENCE = 8


class Description(NamedTuple):
    """An image's global descriptor (D,), and its patch descriptors where they are wanted."""

    descriptor: NDArray[np.float32]
    patches: StoredPatches | None


Outcome = Description | PhotoError
"""Of an image that the device could not decode, why."""


class Ticket(NamedTuple):
    """An image's place in a batch."""

    batch: Future[list[Outcome]]
    place: int

    def done(self) -> bool:
        """Whether its batch has been computed."""
        return self.batch.done()

    def result(self) -> Outcome:
        """What is known of the image; waits for its batch, and raises what ended that."""
        return self.batch.result()[self.place]


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


class _Launched(NamedTuple):
    """What a device computes of some images, on its way to the CPU's memory."""

    packed: Tensor
    arrived: torch.cuda.Event | None

    def bytes(self) -> NDArray[np.uint8]:
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.packed.numpy()


class BatchDescriber:
    """Describes photographs with one model, whoever brings them, for as long as a worker lives.

    A batch holds images of one size and is computed when it is full, when many images have come
    after its first, or at `flush`. On a CPU `lanes` threads compute a batch each. On a GPU one
    thread brings batches to the device, one launches their computation and one waits for it: they
    stay, since each new thread pays a second for cuDNN's plans. `patch_size` (in cells of the
    feature map) is that of the patch descriptors, 0 for none; they come from the same pass through
    the network. Files are decoded on the device by `decoder`. All methods are thread-safe.
    """

    def __init__(
        self,
        model: DescriptorModel,
        batch_size: int,
        lanes: int,
        patch_size: int = 0,
        decoder: JpegDecoder | None = None,
    ) -> None:
        self._model, self._decoder = model, decoder
        self._sizes = (patch_size,) if patch_size else ()
        whole = model if isinstance(model, AggregatedModel) else None
        self._device = whole.device if whole else torch.device("cpu")
        on_cpu = self._device.type == "cpu"
        self.batch_size = min(batch_size, _CPU_BATCH) if on_cpu else batch_size
        # A batch that once did not fit the GPU's memory is not tried again.
        self._limit = self.batch_size
        self._run = (
            OftenRecorded(
                lambda stack: whole.packed(stack, self._sizes),
                self.batch_size,
                cuda_recorder(self._device),
            )
            if whole
            else None
        )
        self._stream = None if on_cpu else torch.cuda.Stream(self._device)
        self._bringing = None if on_cpu else ThreadPoolExecutor(1, "bring")
        self._computing = ThreadPoolExecutor(lanes if on_cpu else 1, "describe")
        self._waiting = None if on_cpu else ThreadPoolExecutor(1, "wait")
        self._room = threading.Semaphore(lanes + 1 if on_cpu else 4)
        self._lock = threading.Lock()
        self._open: dict[tuple[int, int], Batch] = {}  # the oldest first
        self._added = 0
        self._latencies: deque[tuple[int, int]] = deque()
        self._on_cpu: deque[int] = deque()

    def add(self, picture: Pixels | Encoded) -> Ticket:
        """Take a photograph, whose memory is the caller's again; waits while batches wait."""
        target = self._model.spec.input_size
        if isinstance(picture, Encoded):
            width, height = target.target(*picture.upright_size)
        else:
            width, height = target.resized(picture.shape[1], picture.shape[0])
        with self._lock:
            batch = self._open.get((height, width))
            if batch is None:
                batch = self._open[height, width] = Batch((height, width), self._added)
            place = batch.count
            if isinstance(picture, Encoded):
                batch.encoded[place] = picture
            else:
                if batch.pixels is None:
                    batch.pixels = self._stack(height, width)
                batch.pixels[place] = resize(picture, (width, height))
            # Counted last: what cannot be taken leaves no gap.
            batch.count += 1
            self._added += 1
            if batch.count == self.batch_size:
                self._send((height, width))
            patience = _PATIENCE * self.batch_size
            while self._open and self._added - self._oldest().opened > patience:
                self._send(next(iter(self._open)))
        return Ticket(batch.future, place)

    def flush(self) -> None:
        """Compute what waits for its batch to be filled."""
        with self._lock:
            while self._open:
                self._send(next(iter(self._open)))

    def taken_latencies(self) -> list[tuple[int, int]]:
        """(images, microseconds) of each batch computed since it was last asked."""
        return _taken(self._latencies)

    def taken_on_cpu(self) -> int:
        """Files that the device could not decode and the CPU did, since it was last asked."""
        return sum(_taken(self._on_cpu))

    def close(self) -> None:
        """End the threads; the futures of batches that are not computed are cancelled."""
        with self._lock:
            for batch in self._open.values():
                batch.future.cancel()
            self._open.clear()
        for pool in (self._bringing, self._computing, self._waiting):
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)

    def _oldest(self) -> Batch:
        return next(iter(self._open.values()))

    def _stack(self, height: int, width: int) -> NDArray[np.uint8]:
        shape = (self.batch_size, height, width, 3)
        if self._device.type == "cpu":
            return np.empty(shape, np.uint8)
        # Pinned memory is kept by torch for the next batch.
        return torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()

    def _send(self, size: tuple[int, int]) -> None:
        batch = self._open.pop(size)
        self._room.acquire()
        pool = self._bringing or self._computing
        try:
            pool.submit(self._guarded, batch, self._bring if self._bringing else self._describe)
        except BaseException as error:
            self._room.release()
            batch.future.set_exception(error)
            raise

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
        stack, errors = self._on_device(batch)
        if self._run is None:
            rows = self._model.describe(list(stack.numpy()))
            found = [Description(row, None) for row in rows]
        else:
            found = self._arrived(batch, self._launches(stack))
        self._end(batch, [errors.get(place, one) for place, one in enumerate(found)])

    @torch.inference_mode()
    def _bring(self, batch: Batch) -> None:
        """Copy or decode a batch's images, beside what is computed of those before."""
        assert self._stream is not None
        with torch.cuda.stream(self._stream):
            stack, errors = self._on_device(batch)
            there = torch.cuda.Event()
            there.record()
        self._computing.submit(self._guarded, batch, self._launch, stack, errors, there)

    @torch.inference_mode()
    def _launch(
        self, batch: Batch, stack: Tensor, errors: dict[int, PhotoError], there: torch.cuda.Event
    ) -> None:
        batch.started = time.monotonic()
        computing = torch.cuda.current_stream(self._device)
        computing.wait_event(there)
        stack.record_stream(computing)
        launches = self._launches(stack)
        assert self._waiting is not None
        self._waiting.submit(self._guarded, batch, self._await, launches, errors)

    def _await(
        self, batch: Batch, launches: list[_Launched], errors: dict[int, PhotoError]
    ) -> None:
        found = self._arrived(batch, launches)
        self._end(batch, [errors.get(place, one) for place, one in enumerate(found)])

    def _on_device(self, batch: Batch) -> tuple[Tensor, dict[int, PhotoError]]:
        """(count, H, W, 3) uint8 on the device, and what could not be decoded by place."""
        if not batch.encoded:
            assert batch.pixels is not None
            pixels = torch.from_numpy(batch.pixels)[: batch.count]
            return pixels.to(self._device, non_blocking=True), {}
        assert self._decoder is not None
        places = list(batch.encoded)
        stack, errors, on_cpu = decoded_stack(
            [*batch.encoded.values()], batch.size, self._decoder, self._device
        )
        self._on_cpu.append(on_cpu)
        if batch.pixels is not None:
            whole = torch.from_numpy(batch.pixels)[: batch.count].to(
                self._device, non_blocking=True
            )
            whole[torch.tensor(places, device=self._device)] = stack
            stack = whole
        return stack, {places[place]: error for place, error in errors.items()}

    def _launches(self, stack: Tensor) -> list[_Launched]:
        """What is computed of the images, as many of them at a time as the memory holds."""
        launches: list[_Launched] = []

        def launch(part: Tensor) -> list[None]:
            assert self._run is not None
            launches.append(_launched(self._run(part)))
            return [None] * len(part)

        limit = within_memory(launch, stack, self._limit)[1]
        if limit < self._limit and self._run is not None:
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


def _launched(packed: Tensor) -> _Launched:
    """On the way to the CPU's memory, which it has pinned for it."""
    if packed.device.type == "cpu":
        return _Launched(packed, None)
    host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
    host.copy_(packed, non_blocking=True)
    arrived = torch.cuda.Event(blocking=True)
    arrived.record()
    return _Launched(host, arrived)


def _taken(items: deque[Item]) -> list[Item]:
    """All of them, each to one of the threads that ask."""
    found: list[Item] = []
    with contextlib.suppress(IndexError):
        while True:
            found.append(items.popleft())
    return found
