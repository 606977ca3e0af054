"""Decoding in a process of its own, which ends where a photograph takes too much time or memory.

The process is started for the first photograph that needs one, and serves others after it. It is a
fresh interpreter, not a fork: BLAS and Beam keep threads, which a fork would leave half-copied. It
ends when the pipe to it closes, and so with the process that started it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vladmap.photos.decoding.bounds import SECONDS, memory_limit
from vladmap.photos.processes import ended, require_no_end, started, with_this_package
from vladmap.schemas.rejects import PhotoError, RejectReason

Size = tuple[int, int]
Target = Callable[[int, int], Size]

# The limit of elapsed time; it is longer than that of processor time, as the machine may be busy.
_WAIT_S = 4 * SECONDS
# Messages that decoders such as libtiff print where they skip or replace damaged data.
_DAMAGE = ("Corrupt JPEG", "Decoding error", "Premature end", "not in table", "Bad code")


def decode(data: bytes, max_pixels: int, target: Target | None) -> Any:
    """What `photos.decoding.decode.decode_rgb` returns and raises, and TOO_COSTLY or CRASHED."""
    return _call("decode", data, max_pixels, target)


def inspect(data: bytes, max_pixels: int) -> Any:
    """What `photos.decoding.decode.inspect` returns and raises, and TOO_COSTLY or CRASHED."""
    return _call("inspect", data, max_pixels, None)


def _call(job: str, data: bytes, max_pixels: int, target: Target | None) -> Any:
    worker = _take()
    healthy = False
    try:
        outcome = worker.run(job, data, max_pixels, target)
        healthy = True
    finally:
        if healthy:
            _give_back(worker)
        else:
            worker.close()
    if isinstance(outcome, PhotoError):
        raise outcome
    return outcome


class _Worker:
    """A child process that decodes one photograph at a time."""

    def __init__(self) -> None:
        environment = with_this_package()
        environment["OPENBLAS_NUM_THREADS"] = "1"
        self._process = started(
            [sys.executable, "-m", "vladmap.photos.decoding.apart"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def run(self, job: str, data: bytes, max_pixels: int, target: Target | None) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(_WAIT_S, end)
        timer.start()
        try:
            _send(self._process.stdin, (job, max_pixels, SECONDS, target is not None))
            self._process.stdin.write(len(data).to_bytes(8, "little"))
            self._process.stdin.write(data)
            self._process.stdin.flush()
            kind, outcome = pickle.load(self._process.stdout)
            if kind == "size":
                assert target is not None
                _send(self._process.stdin, target(*outcome))
                kind, outcome = pickle.load(self._process.stdout)
            if kind == "pixels":
                return _received(self._process.stdout, outcome)
            return outcome
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            require_no_end()
            self._process.wait()
            raise self._failure(late.is_set()) from None
        finally:
            timer.cancel()

    def _failure(self, late: bool) -> PhotoError:
        code = self._process.returncode
        if late or code == -signal.SIGXCPU:
            return PhotoError(
                RejectReason.TOO_COSTLY, f"not decoded after {SECONDS} s of processor time"
            )
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return PhotoError(RejectReason.CRASHED, f"the process that decoded it ended: {cause}")

    def close(self) -> None:
        ended(self._process)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


_lock = threading.Lock()
_idle: list[_Worker] = []
_owner = os.getpid()


def _take() -> _Worker:
    global _owner
    with _lock:
        if _owner != os.getpid():  # a fork has its parent's list, but not its children
            _idle.clear()
            _owner = os.getpid()
        if _idle:
            return _idle.pop()
    return _Worker()


def _give_back(worker: _Worker) -> None:
    with _lock:
        _idle.append(worker)


@atexit.register
def _close_idle() -> None:
    with _lock:
        while _idle and _owner == os.getpid():
            _idle.pop().close()


def _send(stream: IO[bytes], message: Any) -> None:
    stream.write(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
    stream.flush()


def main() -> None:
    """Decode what comes on stdin until it ends."""
    from vladmap.photos.decoding import decode as decoding

    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print does not get among the answers
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 2)
        while True:
            try:
                job, max_pixels, seconds, asks = pickle.load(requests)
            except EOFError:
                return
            data = _read(requests)
            _limit(memory_limit(max_pixels) - len(data), seconds)

            def target(width: int, height: int) -> Size:
                _send(answers, ("size", (width, height)))
                wanted: Size = pickle.load(requests)
                return wanted

            try:
                outcome: Any = (
                    decoding.inspect_here(data, max_pixels)
                    if job == "inspect"
                    else decoding.decode_here(data, max_pixels, target if asks else None)
                )
                printed.seek(0)
                words = printed.read().decode(errors="replace")
                if any(sign in words for sign in _DAMAGE):
                    first = next(
                        line for line in words.splitlines() if any(s in line for s in _DAMAGE)
                    )
                    outcome = PhotoError(
                        RejectReason.DECODE_FAILED, f"damaged in the middle: {first.strip()[:200]}"
                    )
            except PhotoError as error:
                outcome = error
            except MemoryError:
                outcome = PhotoError(
                    RejectReason.TOO_COSTLY, "decoding it takes more memory than it may"
                )
            printed.seek(0)
            printed.truncate()
            if isinstance(outcome, np.ndarray):
                _send(answers, ("pixels", outcome.shape))
                answers.write(outcome.data)
                answers.flush()
            else:
                _send(answers, ("outcome", outcome))
            del data, outcome


def _received(stream: IO[bytes], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Pixels, read directly into the array, since a copy would double the memory."""
    pixels = np.empty(shape, np.uint8)
    rest = pixels.data.cast("B")
    while len(rest):
        count = stream.readinto(rest)  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        rest = rest[count:]
    return pixels


def _read(stream: IO[bytes]) -> bytes:
    size = int.from_bytes(stream.read(8), "little")
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _limit(memory: int, seconds: int) -> None:
    """Limit this process to `memory` further bytes and `seconds` of further processor time.

    macOS does not enforce the limit of memory.
    """
    import resource

    def lower(kind: int, limit: int) -> None:
        hard = resource.getrlimit(kind)[1]
        bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (bound, hard))

    usage = resource.getrusage(resource.RUSAGE_SELF)
    lower(resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime) + seconds + 1)
    lower(resource.RLIMIT_DATA, _private_bytes() + memory)


def _private_bytes() -> int:
    """Bytes of private memory that the process has asked for."""
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmData:"):
                return 1024 * int(line.split()[1])
    return 2**29


if __name__ == "__main__":
    main()
