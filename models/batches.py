"""Descriptors of photographs in batches that are filled across all that ask for them."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import NamedTuple

from vladmap.models.base import DescriptorModel, Pixels, resize
from vladmap.models.computing import Batch, Computer, Outcome
from vladmap.models.encoded import JpegDecoder
from vladmap.models.gpu import Gpu
from vladmap.photos.decoding.encoded import Encoded

# Images that come after the first of a batch, in batches, before it is computed as it is.
_PATIENCE = 8

# Batches that wait to be filled: each is a size of image, and has the memory of a whole batch.
_OPEN = 16


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


class BatchDescriber:
    """Describes photographs with one model, whoever brings them, for as long as a worker lives.

    A batch holds images of one size and is computed when it is full, when many images or sizes have
    come after its first, or at `flush`. What the arguments are `models.computing.Computer` says;
    so it says which threads compute. All methods are thread-safe.
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
        self._input_size = model.spec.input_size
        self._computer = Computer(model, batch_size, lanes, patch_size, decoder, gpu)
        self.batch_size = self._computer.batch_size
        self._lock = threading.Lock()
        self._open: dict[tuple[int, int], Batch] = {}  # the oldest first
        self._added = 0

    def add(self, picture: Pixels | Encoded) -> Ticket:
        """Take a photograph, whose memory is the caller's again; waits while batches wait."""
        target = self._input_size
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
                batch.encoded[place] = picture.owned()
            else:
                if batch.pixels is None:
                    batch.pixels = self._computer.host(height, width)
                batch.pixels[place] = resize(picture, (width, height))
            # Counted last: what cannot be taken leaves no gap.
            batch.count += 1
            self._added += 1
            if batch.count == self.batch_size:
                self._send((height, width))
            patience = _PATIENCE * self.batch_size
            while len(self._open) > _OPEN or (
                self._open and self._added - self._oldest().opened > patience
            ):
                self._send(next(iter(self._open)))
        return Ticket(batch.future, place)

    def flush(self) -> None:
        """Compute what waits for its batch to be filled."""
        with self._lock:
            while self._open:
                self._send(next(iter(self._open)))

    def taken_latencies(self) -> list[tuple[int, int]]:
        """(images, microseconds) of each batch computed since it was last asked."""
        return self._computer.taken_latencies()

    def taken_on_cpu(self) -> int:
        """Files that the device could not decode and the CPU did, since it was last asked."""
        return self._computer.taken_on_cpu()

    def close(self) -> None:
        """End the threads; the futures of batches that are not computed are cancelled."""
        with self._lock:
            for batch in self._open.values():
                batch.future.cancel()
            self._open.clear()
        self._computer.close()

    def _oldest(self) -> Batch:
        return next(iter(self._open.values()))

    def _send(self, size: tuple[int, int]) -> None:
        self._computer.start(self._open.pop(size))
