"""A function call in a process of its own: a crash or a hang of COLMAP costs that call alone.

The child is a fresh interpreter, not a fork: COLMAP and BLAS keep threads, which a fork would
leave half-copied. It ends when the process that started it does, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from vladmap.photos.processes import child, end_with, with_this_package

Result = TypeVar("Result")

_LOG_LINES = 3
# Calls beside each other fill the cores, and sums over more threads differ in their last bits.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_NO_MEMORY = ("MemoryError", "bad_alloc")


class ChildFailed(Exception):
    """The child crashed, raised or ran out of time; the message says which, in one line.

    `out_of_memory`: it was killed as the system does where memory runs out, or was refused memory.
    """

    def __init__(self, message: str, out_of_memory: bool = False) -> None:
        super().__init__(message)
        self.out_of_memory = out_of_memory


def call(function: Callable[..., Result], *arguments: Any, time_limit_s: float) -> Result:
    """Return `function(*arguments)`, run in a child process within `time_limit_s` seconds.

    The function must be importable by its module's name, its arguments and result picklable. What
    it prints, COLMAP's narration included, is kept only to explain a failure.

    Raises:
        ChildFailed: the child raised, was killed by a signal, or was still running at the limit.
    """
    with tempfile.TemporaryDirectory(prefix="vladmap-child-") as folder:
        job, result, log = (Path(folder) / name for name in ("job", "result", "log"))
        job.write_bytes(
            pickle.dumps((function.__module__, function.__qualname__, list(sys.path), arguments))
        )
        environment = {**with_this_package(), **_ONE_THREAD}
        module = [sys.executable, "-m", "vladmap.mapping.child"]
        words = [*module, str(job), str(result), str(os.getpid())]
        with (
            log.open("wb") as output,
            child(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            ) as process,
        ):
            try:
                code = process.wait(time_limit_s)
            except subprocess.TimeoutExpired:
                raise ChildFailed(f"still running after {time_limit_s:.0f} s") from None
        if code != 0 or not result.exists():
            raise _failure(code, log)
        outcome: Result = pickle.loads(result.read_bytes())
        return outcome


def _failure(code: int, log: Path) -> ChildFailed:
    cause = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = lines[-_LOG_LINES:]
    out_of_memory = code == -signal.SIGKILL or any(
        word in line for line in said for word in _NO_MEMORY
    )
    if code == -signal.SIGKILL:
        cause += ", as happens where the machine's memory runs out"
    return ChildFailed(" | ".join([cause, *said]), out_of_memory)


def main() -> None:
    """Run the call that a job file describes and leave its result beside it."""
    job, result, parent = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    end_with(parent)
    _die_first()
    module, name, path, arguments = _load(job)
    sys.path[:] = path
    function = getattr(__import__(module, fromlist=[name]), name)
    result.write_bytes(pickle.dumps(function(*arguments)))


def _die_first() -> None:
    """Where memory runs out, Linux is to end this process and not the one that started it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def _load(job: Path) -> tuple[str, str, list[str], tuple[Any, ...]]:
    module, name, path, arguments = pickle.loads(job.read_bytes())
    return module, name, path, arguments


if __name__ == "__main__":
    main()
