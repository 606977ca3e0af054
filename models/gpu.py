"""A GPU as what describes photographs uses it: pinned memory, streams, events and recordings.

Copies and decoding run on streams of their own, beside the computing of the images before; an
event in one stream is what another waits for. All of it is asked for in a few methods, so that
the order can be proved without a GPU, by one that is played.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from vladmap.models.recorded import Function, Recorder, Replay


class _Recording:
    """While one thread records, no other may wait for the whole device or give memory back to it:
    CUDA would end the recording. Whoever decodes may have to: any number of threads do so at a
    time, and none while one records.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._others = self._recorders = 0
        self._recording = False

    @contextmanager
    def none(self) -> Iterator[None]:
        """A block beside which nobody records; it waits for those that want to."""
        with self._changed:
            self._changed.wait_for(lambda: not self._recorders)
            self._others += 1
        try:
            yield
        finally:
            with self._changed:
                self._others -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A block that records."""
        with self._changed:
            self._recorders += 1  # from here on no other block begins
        try:
            with self._changed:
                self._changed.wait_for(lambda: not self._others and not self._recording)
                self._recording = True
            try:
                yield
            finally:
                self._recording = False
        finally:
            with self._changed:
                self._recorders -= 1
                self._changed.notify_all()


_RECORDING = _Recording()  # one for all GPUs of the process, as CUDA's own rule is

_FREE_AT_LEAST = 0.25
"""The share of the GPU's memory that must be free for a further recording, which keeps its own."""

_WARM_UP = 3


class Event(Protocol):
    """A place in a stream: done when all before it is."""

    def synchronize(self) -> None:
        """Wait until it is done."""


class Gpu:
    """Some threads bring images, one computes, any may wait for an event."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._own = threading.local()
        self._pool = torch.cuda.graph_pool_handle()

    def host(self, shape: tuple[int, ...]) -> Tensor:
        """Bytes of the CPU's memory that copies go from and to beside other work.

        They are not written again before what was asked of them is done, if whoever asked holds
        them until then.
        """
        return torch.empty(shape, dtype=torch.uint8, pin_memory=True)

    @contextmanager
    def bringing(self) -> Iterator[None]:
        """A block whose copies and decoding run beside what is computed and other threads bring."""
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(self._device)
        with _RECORDING.none(), torch.cuda.stream(self._own.stream):
            yield

    def moved(self, pixels: Tensor) -> Tensor:
        """A copy on the device, there once an event after it is done."""
        return pixels.to(self._device, non_blocking=True)

    def mark(self) -> Event:
        """An event after all that this thread has asked for so far."""
        event = torch.cuda.Event(blocking=True)
        event.record()
        return event

    def after(self, event: Event) -> None:
        """What this thread asks for from here on waits for an event."""
        assert isinstance(event, torch.cuda.Event)
        torch.cuda.current_stream(self._device).wait_event(event)

    def fetched(self, result: Tensor) -> tuple[Tensor, Event]:
        """A copy in the CPU's memory, and the event after which it is there."""
        host = self.host(tuple(result.shape))
        host.copy_(result, non_blocking=True)
        return host, self.mark()

    def settle(self) -> None:
        """Wait for all that is computed, and give memory back that nothing uses."""
        with _RECORDING.none():
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()

    def recorder(self) -> Recorder | None:
        """What records computations; None where there is nothing to gain."""
        return self._record

    def _record(self, function: Function, place: Tensor) -> Replay:
        """A CUDA graph of the function; all graphs share the memory of what they compute.

        Raises MemoryError where too little memory is free.
        """
        computing, aside = torch.cuda.current_stream(self._device), torch.cuda.Stream(self._device)
        # Libraries choose their plans, and Triton compiles, in the first calls: not recordable.
        aside.wait_stream(computing)
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                function(place)
        computing.wait_stream(aside)
        with _RECORDING.alone():
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()
            free, whole = torch.cuda.mem_get_info(self._device)
            if free < _FREE_AT_LEAST * whole:
                raise MemoryError(f"{free / 2**30:.1f} of {whole / 2**30:.1f} GiB are free")
            graph = torch.cuda.CUDAGraph()
            try:
                # Other threads go on copying: they are no part of what is recorded.
                with torch.cuda.graph(graph, self._pool, capture_error_mode="thread_local"):
                    output = function(place)
            except BaseException:
                torch.cuda.set_stream(computing)  # a recording that failed leaves its own behind
                raise

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay
