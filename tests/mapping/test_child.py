import os
import signal
import time

import pytest

from vladmap.mapping.child import ChildFailed, call


def total(numbers: list[int], start: int) -> int:
    print("narration")
    return sum(numbers, start)


def raises() -> None:
    raise RuntimeError("the reason")


def crashes() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs() -> None:
    time.sleep(60)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def takes_all_memory() -> None:
    bytearray(1 << 60)


def threads() -> str | None:
    return os.environ.get("OMP_NUM_THREADS")


def test_a_call_returns_its_result_and_keeps_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    assert call(total, [1, 2, 3], 10, time_limit_s=30) == 16
    assert capfd.readouterr() == ("", "")


def test_an_exception_is_told() -> None:
    with pytest.raises(ChildFailed, match="the reason"):
        call(raises, time_limit_s=30)


def test_a_crash_names_its_signal() -> None:
    with pytest.raises(ChildFailed, match="SIGSEGV"):
        call(crashes, time_limit_s=30)


def test_a_killed_process_and_one_that_is_refused_memory_are_out_of_memory() -> None:
    for function, words in ((killed, "killed by SIGKILL"), (takes_all_memory, "MemoryError")):
        with pytest.raises(ChildFailed, match=words) as failure:
            call(function, time_limit_s=30)
        assert failure.value.out_of_memory
    for function in (raises, crashes):
        with pytest.raises(ChildFailed) as failure:
            call(function, time_limit_s=30)
        assert not failure.value.out_of_memory


def test_a_call_computes_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert call(threads, time_limit_s=30) == "1"


def test_a_hang_ends_at_the_limit() -> None:
    before = time.monotonic()
    with pytest.raises(ChildFailed, match="still running"):
        call(hangs, time_limit_s=1.5)
    assert time.monotonic() - before < 10
