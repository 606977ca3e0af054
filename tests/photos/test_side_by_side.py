"""Jobs beside each other: their order, how many at once, and what a failure costs."""

from __future__ import annotations

import threading

import pytest

from vladmap.photos import side_by_side as module
from vladmap.photos.side_by_side import Job, OutOfMemory, side_by_side


@pytest.fixture(autouse=True)
def _memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """125 bytes are free, of which jobs may take 100."""
    monkeypatch.setattr(module, "free_memory", lambda: 125)


class Record:
    """Work that notes what begins, and how many run at once; a gate keeps all that begin."""

    def __init__(self, together: int) -> None:
        self.begun: list[int] = []
        self.most = 0
        self._running, self._lock = 0, threading.Lock()
        self._gate = threading.Barrier(together)

    def __call__(self, item: int, alone: bool) -> int:
        with self._lock:
            self.begun.append(item)
            self._running += 1
            self.most = max(self.most, self._running)
        self._gate.wait(30)
        with self._lock:
            self._running -= 1
        return 10 * item


def test_as_many_jobs_run_at_once_as_there_are_workers_the_largest_first() -> None:
    work = Record(together=2)
    results = list(side_by_side(work, [Job(size, size) for size in (1, 4, 2, 3)], workers=2))
    assert sorted(results) == [10, 20, 30, 40]
    assert work.most == 2
    assert set(work.begun[:2]) == {4, 3}


def test_one_worker_does_the_largest_first_and_each_alone() -> None:
    seen: list[tuple[int, bool]] = []
    list(
        side_by_side(
            lambda item, alone: seen.append((item, alone)), [Job(1, 1), Job(3, 3), Job(2, 2)], 1
        )
    )
    assert seen == [(3, True), (2, True), (1, True)]


def test_jobs_that_do_not_fit_into_memory_together_do_not_run_together() -> None:
    """Of 100 bytes one takes 70: beside it only that of 30 fits, not those of 60 and 50."""
    order: list[set[int]] = []
    running: set[int] = set()
    lock = threading.Lock()

    def work(item: int, alone: bool) -> int:
        with lock:
            running.add(item)
            order.append(set(running))
        threading.Event().wait(0.01)
        with lock:
            running.discard(item)
        return item

    list(side_by_side(work, [Job(size, size) for size in (30, 50, 60, 70)], workers=4))
    assert len(order) == 4
    assert all(sum(together) <= 100 for together in order)


def test_a_job_larger_than_the_memory_runs_where_nothing_else_does() -> None:
    assert list(side_by_side(lambda item, alone: item, [Job("large", 10**6)], 2)) == ["large"]


def test_a_job_that_had_too_little_memory_is_done_again_alone_when_the_others_have_ended() -> None:
    seen: list[tuple[str, bool]] = []

    def work(item: str, alone: bool) -> str:
        seen.append((item, alone))
        if item == "hungry" and not alone:
            raise OutOfMemory
        return item

    jobs = [Job("hungry", 50), Job("other", 40), Job("third", 30)]
    assert sorted(side_by_side(work, jobs, 2)) == ["hungry", "other", "third"]
    assert seen[-1] == ("hungry", True)
    assert seen.count(("hungry", False)) == 1


def test_what_one_job_raises_is_raised_when_the_others_have_ended() -> None:
    done: list[int] = []

    def work(item: int, alone: bool) -> int:
        if item == 3:
            raise ValueError("three")
        done.append(item)
        return item

    with pytest.raises(ValueError, match="three"):
        list(side_by_side(work, [Job(size, size) for size in (1, 2, 3, 4)], workers=2))
    assert sorted(done) == [1, 2, 4]


def test_an_interruption_begins_nothing_more() -> None:
    begun: list[int] = []

    def work(item: int, alone: bool) -> int:
        begun.append(item)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(side_by_side(work, [Job(size, size) for size in (1, 2, 3)], workers=1))
    assert begun == [3]


def test_two_that_work_side_by_side_at_once_take_turns() -> None:
    """Each would use all cores of the machine."""
    running, most = 0, 0
    lock = threading.Lock()

    def work(item: int, alone: bool) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.02)
        with lock:
            running -= 1
        return item

    def one() -> None:
        list(side_by_side(work, [Job(1, 1)], workers=2))

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
