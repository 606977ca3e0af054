"""Photographs read ahead of the work on them, by threads or by processes that live as long.

Threads share the interpreter's lock with what launches a model: enough beside a CPU's arithmetic,
a tenth of what a GPU takes. Processes do not, and hand pixels over in shared memory: pages without
a name, which the kernel frees when the last process that maps them has ended, however it ended.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vladmap.atlas.photographs import Photo, Target, load_photo
from vladmap.photos.processes import ended, require_no_end, started, with_this_package
from vladmap.schemas.rejects import PhotoError, RejectReason

Rows = Sequence[dict[str, Any]]

_ROWS_A_MESSAGE = 8


class OneByOne(Protocol):
    """How a photograph is read."""

    def photo(self, row: dict[str, Any]) -> Photo:
        """The photograph that a row names, or its error; it is called from several threads."""


@dataclass(frozen=True)
class How:
    """How photographs are read: at the size that `target` (picklable) gives, or at their own.

    `as_files`: JPEGs stay files, to be decoded elsewhere.
    """

    max_pixels: int
    target: Target | None = None
    as_files: bool = False

    def photo(self, row: dict[str, Any]) -> Photo:
        """Read one."""
        return load_photo(row, self.max_pixels, self.target, self.as_files)


@dataclass(frozen=True)
class Read:
    """Photographs that were asked for together, in order.

    Their pixels or files may lie in memory that is used again once they are given back.
    """

    photos: list[Photo]
    slots: tuple[int, ...] = ()


class Reader(ABC):
    """Reads photographs beside the caller. All methods are thread-safe."""

    together: int = 1
    """Rows that are best asked for together."""

    @abstractmethod
    def submit(self, rows: Rows) -> Future[Read]:
        """Begin to read some rows of `images/`."""

    @abstractmethod
    def give_back(self, read: Read) -> None:
        """The caller has done with their pixels."""

    @abstractmethod
    def close(self) -> None:
        """End what reads; what nobody reads yet is cancelled."""


def in_order(reader: Reader, rows: Rows, ahead: int) -> Iterator[Photo]:
    """The photographs of some rows, in their order; about `ahead` are read before they are wanted.

    A photograph's pixels hold until the next one is asked for.
    """
    waiting: deque[Future[Read]] = deque()
    for start in range(0, len(rows), reader.together):
        waiting.append(reader.submit(rows[start : start + reader.together]))
        if len(waiting) * reader.together > ahead:
            yield from _given(reader, waiting.popleft())
    while waiting:
        yield from _given(reader, waiting.popleft())


def _given(reader: Reader, future: Future[Read]) -> Iterator[Photo]:
    read = future.result()
    try:
        yield from read.photos
    finally:
        reader.give_back(read)


class ThreadReader(Reader):
    """Reads in threads of this process."""

    def __init__(self, how: OneByOne, threads: int) -> None:
        self._how = how
        self._pool = ThreadPoolExecutor(threads, "read")

    def submit(self, rows: Rows) -> Future[Read]:
        return self._pool.submit(lambda: Read([self._how.photo(row) for row in rows]))

    def give_back(self, read: Read) -> None:
        """Each photograph has memory of its own."""

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class ProcessReader(Reader):
    """Reads in `processes` fresh interpreters, started when there is work for them.

    Pixels and files arrive in `slots` pieces of shared memory of `slot_bytes` each; where none is
    free, or one is too small, they come through a pipe. A process that dies costs nothing where it
    was ended from outside; a photograph that ends two of them is rejected, CRASHED.
    """

    together = _ROWS_A_MESSAGE

    def __init__(self, how: How, processes: int, slots: int, slot_bytes: int) -> None:
        self._how = how
        self._slot_bytes = slot_bytes
        self._file = _unnamed_file(slots * slot_bytes)
        self._memory = mmap.mmap(self._file, slots * slot_bytes)
        self._free, self._lock = list(range(slots)), threading.Lock()
        self._own = threading.local()
        self._children: set[_Child] = set()
        self._pool = ThreadPoolExecutor(processes, "read")

    def submit(self, rows: Rows) -> Future[Read]:
        with self._lock:
            count = min(len(rows), len(self._free))
            slots = tuple(self._free.pop() for _ in range(count))
        try:
            return self._pool.submit(self._read, rows, slots)
        except BaseException:
            self._release(slots)
            raise

    def give_back(self, read: Read) -> None:
        self._release(read.slots)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for child in list(self._children):
            self._end(child)
        os.close(self._file)
        with contextlib.suppress(BufferError):  # somebody still looks at pixels: until they do not
            self._memory.close()

    @property
    def running(self) -> list[int]:
        """Process ids of the readers that were started and not ended."""
        return [child.process.pid for child in list(self._children)]

    def _release(self, slots: Sequence[int]) -> None:
        with self._lock:
            self._free.extend(slots)

    def _read(self, rows: Rows, slots: tuple[int, ...]) -> Read:
        """Run by the thread that has a child of its own."""
        places: list[int | None] = [*slots, *[None] * (len(rows) - len(slots))]
        try:
            try:
                photos = self._asked(rows, places)
            except _Died:
                photos = [self._alone(*pair) for pair in zip(rows, places, strict=True)]
        except BaseException:
            self._release(slots)
            raise
        return Read(photos, slots)

    def _alone(self, row: dict[str, Any], place: int | None) -> Photo:
        try:
            return self._asked([row], [place])[0]
        except _Died as error:
            why = f"the process that decoded it ended: {error}"
            return Photo(row, error=PhotoError(RejectReason.CRASHED, why))

    def _asked(self, rows: Rows, places: Sequence[int | None]) -> list[Photo]:
        child: _Child | None = getattr(self._own, "child", None)
        if child is None:
            child = self._own.child = _Child(self._how, self._file, self._slot_bytes)
            self._children.add(child)
        try:
            found = child.ask(rows, places)
        except BaseException:
            self._own.child = None
            self._end(child)
            raise
        pairs = zip(found, places, strict=True)
        return [
            replace(photo, row=row) if isinstance(photo, Photo) else self._from_slot(row, photo, at)
            for row, (photo, at) in zip(rows, pairs, strict=True)
        ]

    def _from_slot(self, row: dict[str, Any], shape: Any, place: int | None) -> Photo:
        """A photograph whose pixels, of a shape, or whose file is in a slot."""
        assert place is not None
        start = place * self._slot_bytes
        if isinstance(shape, InSlot):
            data = np.frombuffer(self._memory, np.uint8, shape.size, start)
            return Photo(row, encoded=replace(shape.encoded, data=data))
        count = int(np.prod(shape))
        pixels: NDArray[np.uint8] = np.frombuffer(self._memory, np.uint8, count, start)
        return Photo(row, pixels.reshape(shape))

    def _end(self, child: _Child) -> None:
        self._children.discard(child)
        child.close()


class _Died(Exception):
    """A reading process ended before it answered."""


@dataclass(frozen=True)
class InSlot:
    """A file that lies in a slot: its length, and what is known of it beside its bytes."""

    size: int
    encoded: Any


class _Child:
    """A process that reads what it is asked to, some photographs at a time."""

    def __init__(self, how: How, file: int, slot_bytes: int) -> None:
        environment = with_this_package()
        environment["OPENBLAS_NUM_THREADS"] = "1"
        self.process = started(
            [sys.executable, "-m", "vladmap.atlas.reading_process", str(file), str(slot_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(file,),
            env=environment,
        )
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            pickle.dump(how, self.process.stdin, pickle.HIGHEST_PROTOCOL)

    def ask(self, rows: Rows, places: Sequence[int | None]) -> list[Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            message = pickle.dumps((list(rows), list(places)), pickle.HIGHEST_PROTOCOL)
            self.process.stdin.write(message)
            self.process.stdin.flush()
            answer = pickle.load(self.process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            require_no_end()
            raise _Died(f"exit code {self.process.wait()}") from error
        if isinstance(answer, str):
            raise RuntimeError(f"a process that reads photographs failed:\n{answer}")
        found: list[Any] = answer
        return found

    def close(self) -> None:
        ended(self.process)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


def _unnamed_file(size: int) -> int:
    """A file in memory (on macOS on disk) that no name leads to; its pages are made when written.

    Not `multiprocessing.shared_memory`: its files have names, which a killed process leaves behind,
    and lie in /dev/shm, of which a container has 64 MB and kills whoever writes beyond.
    """
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("vladmap photographs")
    else:
        with tempfile.TemporaryFile() as found:
            file = os.dup(found.fileno())
    os.truncate(file, size)
    return file
