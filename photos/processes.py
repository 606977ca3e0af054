"""Child processes that end with their parent, and pools in which a crash costs one item of work."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import tempfile
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
_POLL_S = 0.5

_ending = threading.Event()
_children: set[subprocess.Popen[bytes]] = set()


def with_this_package() -> dict[str, str]:
    """The environment for a process that runs a module of this same installation of vladmap."""
    root = str(Path(vladmap.__file__).resolve().parents[1])
    paths = (root, os.environ.get("PYTHONPATH"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


@contextlib.contextmanager
def python_of_path() -> Iterator[None]:
    """In the block, `python` of this process's PATH is the interpreter that runs it.

    Beam starts workers by that name. A machine may have no such command, only `python3.11`, and an
    environment need not be activated. Processes that were started in the block may outlive it.
    """
    before = os.environ.get("PATH")
    with tempfile.TemporaryDirectory(prefix="vladmap-python-") as folder:
        program = Path(folder, "python")
        # No link: by its own path an interpreter finds the environment that it belongs to.
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        program.chmod(0o755)
        os.environ["PATH"] = os.pathsep.join((folder, before or os.defpath))
        try:
            yield
        finally:
            if before is None:
                del os.environ["PATH"]
            else:
                os.environ["PATH"] = before


class WorkerDied(Exception):
    """The process that worked on an item died, and so did a second one that tried it alone."""


class WorkerPool:
    """Processes that apply a function to several items at the same time.

    They are spawned, not forked: a fork would inherit the locks of BLAS and gRPC. They ignore
    Ctrl-C, which the parent handles, and end when the parent ends for whatever reason.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._pool = self._made()

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[Result | WorkerDied]:
        """The function's result for each item, in order.

        Where a process dies (out of memory, or by a crash in a library), each item that it may have
        been working on is tried again alone; the result of an item that kills that process as well
        is WorkerDied. The function and the items must be picklable. Exceptions of the function are
        raised here.
        """
        results: dict[int, Result | WorkerDied] = {}
        running: dict[int, Future[Result]] = {}
        alone: set[int] = set()
        for place in range(len(items)):
            while place not in results:
                try:
                    if place in alone:
                        results[place] = self._submit(function, items[place]).result()
                        continue
                    if not running:
                        for other in range(place, len(items)):
                            if other not in results:
                                running[other] = self._submit(function, items[other])
                    results[place] = running.pop(place).result()
                except BrokenExecutor as error:
                    require_no_end()
                    self._renew()
                    if place in alone:
                        results[place] = WorkerDied(str(error))
                        continue
                    ended = {other: each for other, each in running.items() if _ended_well(each)}
                    results |= {other: each.result() for other, each in ended.items()}
                    running = {}
                    waiting = [other for other in range(place, len(items)) if other not in results]
                    # One item a process, and as many and one more were queued ahead.
                    alone = set(waiting[: 2 * self._processes + 1])
            yield results.pop(place)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _made(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._processes, context, end_with_parent)

    def _renew(self) -> None:
        # A broken pool ends its processes and waits for them, but does not end one that was being
        # started as it broke: the wait would be for ever.
        for process in list(self._pool._processes.values()):
            process.kill()
        self.close()
        self._pool = self._made()

    def _submit(self, function: Callable[[Item], Result], item: Item) -> Future[Result]:
        with uninterrupted():  # this may start a process
            return self._pool.submit(function, item)


def _ended_well(future: Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


@contextlib.contextmanager
def child(words: Sequence[str], **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that ignores Ctrl-C and is ended with the block.

    Raises KeyboardInterrupt at the end of the block where `end_all` ended it, so that its
    unfinished work is not reported as a failure.
    """
    process = started(words, **settings)
    try:
        yield process
    finally:
        ended(process)
        require_no_end()


def started(words: Sequence[str], **settings: Any) -> subprocess.Popen[bytes]:
    """A child process that ignores Ctrl-C; it is ended by `ended` or `end_all`.

    Raises KeyboardInterrupt after `end_all`, also where that comes from another thread just now.
    """
    require_no_end()
    with uninterrupted():
        process = subprocess.Popen(words, **settings)
    _children.add(process)
    if _ending.is_set():  # perhaps before it was among the children
        ended(process)
        raise KeyboardInterrupt
    return process


def ended(process: subprocess.Popen[bytes]) -> None:
    """End a process of `started`, if it runs."""
    if process.poll() is None:
        process.kill()
        process.wait()
    _children.discard(process)


def end_all() -> None:
    """End all child processes, as this process is about to end."""
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
    """Processes that are started in the block ignore Ctrl-C, which a terminal sends to all.

    They inherit the blocked signal, so this holds from their first instruction on.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Let this process of `multiprocessing` end as soon as its parent process ends.

    A thread waits for that. The kernel's signal would come when the parent's *thread* ends that
    started this process, and a pool outlives such threads.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        _watch(lambda: wait([parent.sentinel]))


def end_with(parent: int) -> None:
    """Let this process, which a waiting thread of its parent started, end when `parent` ends.

    On Linux the kernel sends a signal, so that the process ends even while a library holds the
    interpreter's lock.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:

        def ended() -> None:
            while os.getppid() == parent:
                time.sleep(_POLL_S)

        _watch(ended)
    if os.getppid() != parent:  # it had ended before
        os._exit(1)


def _watch(ended: Callable[[], object]) -> None:
    def watch() -> None:
        ended()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()
