"""Large pieces of work beside each other, largest first, within the cores and memory there are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from vladmap.photos.machine import free_memory

Item = TypeVar("Item")
Result = TypeVar("Result")

# Of the memory that is free, what is left to everything else.
_RESERVE = 0.2
_machine = threading.Lock()


class OutOfMemory(Exception):
    """Work that ran beside other work had too little memory; alone it may have enough."""


@dataclass(frozen=True)
class Job(Generic[Item]):
    """A piece of work and the bytes of memory that it takes, as far as is known."""

    item: Item
    memory: int


def side_by_side(
    work: Callable[[Item, bool], Result], jobs: Sequence[Job[Item]], workers: int
) -> Iterator[Result]:
    """Yield `work(item, alone)` for each job as it ends, at most `workers` at once, in threads.

    Work is expected to compute in processes of its own. The largest job goes first; one that does
    not fit into the memory left by those that run waits, and smaller ones may go before it; a job
    always runs where nothing else does. Where `work` raises OutOfMemory the job is done again when
    all others have ended, with `alone` true: then it must give a result. The threads of a process
    share its cores: where two call this, one waits for the other.

    Raises what `work` raised first, when the other jobs have ended; an interruption at once.
    """
    with _machine:
        free = free_memory()
        room = float("inf") if free is None else (1.0 - _RESERVE) * free
        waiting = sorted(jobs, key=lambda job: -job.memory)
        again: list[Job[Item]] = []
        failed: list[Exception] = []
        running: dict[Future[Result], Job[Item]] = {}
        with ThreadPoolExecutor(max(1, workers), "side by side") as pool:
            while waiting or running:
                while len(running) < max(1, workers):
                    used = sum(job.memory for job in running.values())
                    fits = (job for job in waiting if not running or used + job.memory <= room)
                    job = next(fits, None)
                    if job is None:
                        break
                    waiting.remove(job)
                    running[pool.submit(work, job.item, workers <= 1)] = job
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    try:
                        yield future.result()
                    except OutOfMemory:
                        again.append(job)
                    except Exception as error:
                        failed.append(error)
        for job in again:
            yield work(job.item, True)
    if failed:
        raise failed[0]
