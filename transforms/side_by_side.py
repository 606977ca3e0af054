"""Tasks that each take long and much memory: those of a bundle beside each other on one machine."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from vladmap.photos.side_by_side import Job, side_by_side
from vladmap.schemas.records import LedgerEntry, Task


class SideBySide(beam.DoFn):
    """Tasks -> ledger entries, `workers` tasks of a bundle at once, as far as memory reaches.

    A class that inherits it says what one task takes and does. With one worker each task is done as
    it comes; with more, at the end of its bundle.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def memory(self, task: Task) -> int:
        """Return the bytes that a task takes, in this process and in its own: the largest first."""
        raise NotImplementedError

    def done(self, task: Task, alone: bool, threads: int) -> LedgerEntry:
        """Do a task in a process with `threads`, and commit it.

        Raises photos.side_by_side.OutOfMemory where it was not `alone` and had too little memory.
        """
        raise NotImplementedError

    def start_bundle(self) -> None:
        self._waiting: list[Job[Task]] = []

    def process(self, task: Task) -> Iterator[LedgerEntry]:
        if self._workers <= 1:
            yield self.done(task, alone=True, threads=1)
        else:
            self._waiting.append(Job(task, self.memory(task)))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        # Where there are fewer tasks than cores, each may use several.
        threads = max(1, self._workers // max(1, len(self._waiting)))
        work = partial(self.done, threads=threads)
        for entry in side_by_side(work, self._waiting, self._workers):
            yield GlobalWindows.windowed_value(entry)
