"""A GPU that is played on a CPU: what is asked of it is done as late as a GPU may do it.

Results arrive when their event is waited for, and no earlier: who reads before sees rubbish. Images
are there when an event after their copy was waited for: what is computed of them before is counted,
and so is a copy whose source has changed until then. Memory of the CPU that is given back is
written over at once: who still needs it sees that; what is computed of the device's memory after it
was given back is counted.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vladmap.models.gpu import Event, Gpu
from vladmap.models.recorded import Function, Recorder, Replay

_RUBBISH = 0xAA


def _memory(shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two arrays over the same bytes. A tensor made of the second keeps it alive, whatever Python
    objects come and go."""
    memory = np.full(shape, _RUBBISH, np.uint8)
    return memory, np.frombuffer(memory, np.uint8).reshape(shape)


class _Stream:
    """What is still to be done, in order."""

    def __init__(self) -> None:
        self.asked = 0
        self._todo: deque[tuple[int, Callable[[], object]]] = deque()
        self._lock = threading.Lock()

    def ask(self, work: Callable[[], object]) -> None:
        with self._lock:
            self.asked += 1
            self._todo.append((self.asked, work))

    def run(self, until: int) -> None:
        with self._lock:
            while self._todo and self._todo[0][0] <= until:
                self._todo.popleft()[1]()


class _Mark:
    def __init__(self, stream: _Stream) -> None:
        self._stream, self._at = stream, stream.asked

    def synchronize(self) -> None:
        self._stream.run(self._at)


class PlayedGraphs:
    """Records as a CUDA graph does: what runs reads one input and writes one output."""

    def __init__(self) -> None:
        self.recorded: list[tuple[int, ...]] = []
        self.replays = 0

    def __call__(self, function: Function, place: Tensor) -> Replay:
        self.recorded.append(tuple(place.shape))
        output = function(place).clone()

        def replay() -> Tensor:
            self.replays += 1
            output.copy_(function(place))
            return output

        return replay


class PlayedGpu(Gpu):
    """`room` images may lie in one copy to the device; more is an end of memory."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.threads: dict[str, set[int]] = {"bring": set(), "compute": set(), "wait": set()}
        self.graphs = PlayedGraphs()
        self.settled = 0
        self.freed_early, self.read_early, self.changed_early = 0, 0, 0
        self._computing, self._bringing = _Stream(), dict[int, _Stream]()
        self._streams = threading.local()
        self._in_use: set[int] = set()
        self._there: set[int] = set()
        self._unready: set[tuple[int, int]] = set()

    @property
    def _stream(self) -> _Stream:
        return getattr(self._streams, "current", self._computing)

    def host(self, shape: tuple[int, ...]) -> Tensor:
        memory, given = _memory(shape)
        weakref.finalize(given, memory.fill, _RUBBISH).atexit = False
        return torch.from_numpy(given)

    @contextmanager
    def bringing(self) -> Iterator[None]:
        thread = threading.get_ident()
        self.threads["bring"].add(thread)
        self._streams.current = self._bringing.setdefault(thread, _Stream())
        try:
            yield
        finally:
            del self._streams.current

    def moved(self, pixels: Tensor) -> Tensor:
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError("played")
        source, memory = pixels.numpy(), _memory(tuple(pixels.shape))
        before = source.copy()
        # What the same stream does next finds it copied, as on a GPU.
        np.copyto(memory[0], source)
        extent = memory[0].ctypes.data, memory[0].nbytes
        if self._stream is not self._computing:
            self._unready.add(extent)

        def copied() -> None:
            self.changed_early += not np.array_equal(before, source)
            self._unready.discard(extent)

        self._stream.ask(copied)
        self._there.add(key := id(memory[1]))
        weakref.finalize(memory[1], self._freed, key).atexit = False
        return torch.from_numpy(memory[1])

    def require_ready(self, stack: Tensor) -> None:
        """Count images that are computed before it is known that they are there."""
        at = stack.data_ptr()
        self.read_early += any(start <= at < start + size for start, size in self._unready)

    def _freed(self, key: int) -> None:
        self.freed_early += key in self._in_use
        self._there.discard(key)

    def mark(self) -> Event:
        return _Mark(self._stream)

    def after(self, event: Event) -> None:
        self.threads["compute"].add(threading.get_ident())
        event.synchronize()

    def fetched(self, result: Tensor) -> tuple[Tensor, Event]:
        host, now, used = self.host(tuple(result.shape)), result.numpy().copy(), set(self._there)
        memory = host.numpy()
        self._in_use |= used

        def arrive() -> None:
            self.threads["wait"].add(threading.get_ident())
            self._in_use.difference_update(used)
            np.copyto(memory, now)

        self._stream.ask(arrive)
        return host, self.mark()

    def settle(self) -> None:
        self.settled += 1
        for stream in [self._computing, *self._bringing.values()]:
            stream.run(stream.asked)

    def recorder(self) -> Recorder | None:
        return self.graphs
