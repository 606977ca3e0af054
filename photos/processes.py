"""Processes that work for this one: they end with it, and one that dies costs one item of work."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

import vladmap

Item = TypeVar("Item")
Result = TypeVar("Result")

_PR_SET_PDEATHSIG = 1
_LOOK_S = 0.5

_ending = threading.Event()
_children: set[subprocess.Popen[bytes]] = set()


def with_this_package() -> dict[str, str]:
    """The environment of a process that runs a module of vladmap, wherever this one found it."""
    root = str(Path(vladmap.__file__).resolve().parents[1])
    paths = (root, os.environ.get("PYTHONPATH"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


class WorkerDied(Exception):
    """The process that worked on an item was killed or crashed, and so was the next one."""


class WorkerPool:
    """Processes that apply a function to items, beside each other.

    They are spawned, not forked: a fork would inherit the locks of BLAS and of gRPC. They leave
    Ctrl-C to the process that started them, and end when it does, however it ends.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._pool = self._made()

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[Result | WorkerDied]:
        """The function's result for each item, in order.

        Where a process dies (for want of memory, or by a crash in a library), each item that may
        have been in its hands is given to a process alone; one that ends that process as well has
        WorkerDied for a result. The function and items are picklable; what it raises is raised.
        """
        found: dict[int, Result | WorkerDied] = {}
        running: dict[int, Future[Result]] = {}
        alone: set[int] = set()
        for place in range(len(items)):
            while place not in found:
                try:
                    if place in alone:
                        found[place] = self._submit(function, items[place]).result()
                        continue
                    if not running:
                        for other in range(place, len(items)):
                            if other not in found:
                                running[other] = self._submit(function, items[other])
                    found[place] = running.pop(place).result()
                except BrokenExecutor as error:
                    require_no_end()
                    self._renew()
                    if place in alone:
                        found[place] = WorkerDied(str(error))
                        continue
                    ended = {other: each for other, each in running.items() if _ended_well(each)}
                    found |= {other: each.result() for other, each in ended.items()}
                    running = {}
                    left = [other for other in range(place, len(items)) if other not in found]
                    # A process each, and one more than that are handed out ahead.
                    alone = set(left[: 2 * self._processes + 1])
            yield found.pop(place)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _made(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._processes, context, end_with_parent)

    def _renew(self) -> None:
        self.close()
        self._pool = self._made()

    def _submit(self, function: Callable[[Item], Result], item: Item) -> Future[Result]:
        with uninterrupted():  # this may start a process
            return self._pool.submit(function, item)


def _ended_well(future: Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


@contextlib.contextmanager
def child(words: Sequence[str], **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that leaves Ctrl-C to this one and does not outlive the block.

    Raises KeyboardInterrupt at the end of the block where `end_all` ended it: what it left undone
    is nobody's failure.
    """
    process = started(words, **settings)
    try:
        yield process
    finally:
        ended(process)
        require_no_end()


def started(words: Sequence[str], **settings: Any) -> subprocess.Popen[bytes]:
    """A child process that leaves Ctrl-C to this one, until `ended` or `end_all`."""
    with uninterrupted():
        process = subprocess.Popen(words, **settings)
    _children.add(process)
    return process


def ended(process: subprocess.Popen[bytes]) -> None:
    """End a process of `started`, if it runs."""
    if process.poll() is None:
        process.kill()
        process.wait()
    _children.discard(process)


def end_all() -> None:
    """End every process that works for this one, because this one ends."""
    _ending.set()
    for process in list(_children):
        process.kill()
    for worker in multiprocessing.active_children():
        worker.kill()


def require_no_end() -> None:
    """Raises KeyboardInterrupt where `end_all` has ended the processes."""
    if _ending.is_set():
        raise KeyboardInterrupt


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Processes started in the block do not take a Ctrl-C, which the terminal sends to them all.

    From their first instruction on: they inherit that the signal is blocked.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """In a process of `multiprocessing`: end at once when the process that started this one does.

    By a thread that waits for its end, not by the kernel's signal, which comes when the *thread*
    ends that started this process, and a pool outlives such threads.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        _watch(lambda: wait([parent.sentinel]))


def end_with(parent: int) -> None:
    """In a process started by a thread that waits for it: end when the process `parent` does.

    Where the kernel can send a signal (Linux) it ends even inside a library that holds the
    interpreter's lock.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:

        def ended() -> None:
            while os.getppid() == parent:
                time.sleep(_LOOK_S)

        _watch(ended)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def _watch(ended: Callable[[], object]) -> None:
    def watch() -> None:
        ended()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()
