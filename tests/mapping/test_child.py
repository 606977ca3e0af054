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


def test_a_call_returns_its_result_and_keeps_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    assert call(total, [1, 2, 3], 10, time_limit_s=30) == 16
    assert capfd.readouterr() == ("", "")


def test_an_exception_is_told() -> None:
    with pytest.raises(ChildFailed, match="the reason"):
        call(raises, time_limit_s=30)


def test_a_crash_names_its_signal() -> None:
    with pytest.raises(ChildFailed, match="SIGSEGV"):
        call(crashes, time_limit_s=30)


def test_a_hang_ends_at_the_limit() -> None:
    before = time.monotonic()
    with pytest.raises(ChildFailed, match="still running"):
        call(hangs, time_limit_s=1.5)
    assert time.monotonic() - before < 10
