"""The table that the benchmark prints, and the parts that fill it, each of which may fail alone."""

from __future__ import annotations

import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from vladmap.schemas.rejects import UserError


class LeftOut(Exception):
    """A part that cannot be measured here, and why."""


@dataclass
class Table:
    """Rows of Markdown, printed as they come."""

    part: str = ""
    failed: list[str] = field(default_factory=list)
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def begin(self) -> None:
        """Print the heads of the columns."""
        print("| part | what | measured | beside it |\n|---|---|---|---|", flush=True)

    def row(self, what: str, measured: str, beside: str = "") -> None:
        """A figure of the part at work."""
        self.rows.append((self.part, what, measured, beside))
        print(f"| {self.part} | {what} | {measured} | {beside} |", flush=True)

    def rate(self, what: str, rate: float, beside: str = "", unit: str = "images/s") -> None:
        """Things a second."""
        self.row(what, f"{rate:,.0f} {unit}" if rate >= 100 else f"{rate:.1f} {unit}", beside)

    def run(self, name: str, part: Callable[[], None]) -> None:
        """Run a part. What it raises is a row, and the others go on."""
        self.part = name
        try:
            part()
        except (LeftOut, UserError, ImportError) as error:
            self.row("left out", "", _one_line(error))
        except Exception as error:
            self.failed.append(name)
            self.row("**failed**", type(error).__name__, _one_line(error))
            traceback.print_exc()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).replace("|", "/")[:200]


@dataclass
class Watched:
    """What a GPU was doing in a block, several times a second: (when, percent busy, MiB in use)."""

    seen: list[tuple[float, int, int]] = field(default_factory=list)

    def between(self, since: float, until: float) -> str:
        """How busy it was from one second since the epoch to another."""
        busy = [percent for when, percent, _ in self.seen if since < when <= until]
        if not busy:
            return "how busy the GPU was is not known: nvidia-smi said nothing in that time"
        memory = max(memory for _, _, memory in self.seen) / 1024
        return (
            f"then busy {sum(busy) / len(busy):.0f} % (from {min(busy)} to {max(busy)}, "
            f"{len(busy)} looks); {memory:.1f} GiB in use"
        )


@contextmanager
def watched(on_gpu: bool) -> Iterator[Watched]:
    """Ask nvidia-smi ten times a second while the block runs; nothing without a GPU."""
    seen = Watched()
    if not on_gpu:
        yield seen
        return
    words = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used"]
    words += ["--format=csv,noheader,nounits", "--loop-ms=100", "--id=0"]
    try:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    except OSError:
        yield seen
        return

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            numbers = [word.strip() for word in line.split(",")]
            if len(numbers) == 2 and all(word.isdigit() for word in numbers):
                seen.seen.append((time.time(), int(numbers[0]), int(numbers[1])))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        process.terminate()
        process.wait()
        thread.join()


def rate(
    work: Callable[[], object],
    count: int,
    device: torch.device,
    rounds: int = 3,
    seconds: float = 5.0,
) -> float:
    """Things a second where each call of `work` does `count`, after one that is not timed.

    The clock ends when `rounds` calls are done, or after `seconds` if that is earlier.
    """

    def there() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    work()
    there()
    started = time.perf_counter()
    done = 0
    while done < rounds and (done == 0 or time.perf_counter() - started < seconds):
        work()
        done += 1
    there()
    return done * count / (time.perf_counter() - started)
