"""The progress of a stage: a bar on a terminal, a line every half minute in a log."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm

from vladmap.console import counter as progress
from vladmap.console.quiet import hidden

log = logging.getLogger("vladmap")

_REFRESH_S = 0.5
_SINGULARS = {"indices": "index"}
_LOG_EVERY_S = 30.0


def counted(number: int, unit: str) -> str:
    """`1 tile`, `2 tiles`."""
    return f"{number} {_SINGULARS.get(unit, unit.removesuffix('s')) if number == 1 else unit}"


def time_left(done: int, total: int, seconds: float) -> str:
    """`, about 3 min left`, extrapolated from the `seconds` so far; empty while nothing is done."""
    if not 0 < done <= total:
        return ""
    left_s = seconds * (total - done) / done
    if left_s < 90:
        return f", about {left_s:.0f} s left"
    if left_s < 5400:
        return f", about {left_s / 60:.0f} min left"
    return f", about {left_s / 3600:.1f} h left"


class Bar:
    """Shows the progress of a stage while its pipeline runs in the `with` block.

    `committed` counts elements by the ledger, for workers in other processes; without it the
    counter of this process is read. `stage` is (n, N): the n-th of the run's N stages.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str,
        committed: Callable[[], int] | None = None,
        stage: tuple[int, int] = (1, 1),
    ) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._stage = stage
        self._committed = committed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Bar:
        progress.reset()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _done(self) -> int:
        done = self._committed() if self._committed else progress.done()
        return min(done, self._total)

    def _watch(self) -> None:
        if hidden():
            return
        if sys.stderr.isatty():
            self._draw()
        else:
            self._log()

    def _draw(self) -> None:
        number, count = self._stage
        title = f"[{number}/{count}] {self._label}" if count > 1 else self._label
        with tqdm(total=self._total, desc=title, unit=f" {self._unit}", leave=False) as bar:
            while not self._stop.wait(_REFRESH_S):
                bar.update(self._done() - bar.n)

    def _log(self) -> None:
        started = time.monotonic()
        while not self._stop.wait(_LOG_EVERY_S):
            done, seconds = self._done(), time.monotonic() - started
            log.info(
                "%s: %d of %d %s after %.0f s%s",
                self._label,
                done,
                self._total,
                self._unit,
                seconds,
                time_left(done, self._total, seconds),
            )
