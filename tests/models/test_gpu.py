"""Who may use a GPU while a recording is made; no GPU is needed."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from vladmap.models.gpu import _Recording

SECONDS = 20.0


def test_threads_bring_images_together() -> None:
    recording, meet = _Recording(), threading.Barrier(3)

    def bring() -> None:
        with recording.none():
            meet.wait(SECONDS)  # raises unless all three are in their blocks at once

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(bring) for _ in range(3)]:
            future.result(SECONDS)


def test_a_recording_waits_for_those_before_it_and_those_after_wait_for_it() -> None:
    recording, begun, may_end = _Recording(), threading.Event(), threading.Event()
    asked, order = threading.Event(), list[str]()

    def bring(name: str) -> None:
        with recording.none():
            order.append(f"{name} begins")
            begun.set()
            may_end.wait(SECONDS)
            order.append(f"{name} ends")

    def record() -> None:
        asked.set()
        with recording.alone():
            order.append("recorded")

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(bring, "first")
        begun.wait(SECONDS)
        recorded = pool.submit(record)
        asked.wait(SECONDS)
        end = time.monotonic() + SECONDS
        while not recording._recorders and time.monotonic() < end:  # until it is in line
            time.sleep(0.001)
        second = pool.submit(bring, "second")
        may_end.set()
        for future in (first, recorded, second):
            future.result(SECONDS)
    assert order == ["first begins", "first ends", "recorded", "second begins", "second ends"]


def test_recordings_are_made_one_at_a_time_and_one_that_fails_lets_others_go_on() -> None:
    recording, inside, most = _Recording(), 0, 0

    def record(fail: bool) -> None:
        nonlocal inside, most
        try:
            with recording.alone():
                inside += 1
                most = max(most, inside)
                inside -= 1
                if fail:
                    raise MemoryError
        except MemoryError:
            pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(record, [False, True] * 20))
    assert most == 1
    with recording.none():
        pass
