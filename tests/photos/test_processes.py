"""Worker processes: they end with their parent, and one that dies costs one item."""

from __future__ import annotations

import contextlib
import multiprocessing.process
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures.process import _ExecutorManagerThread
from pathlib import Path

import pytest

from vladmap.photos.processes import WorkerDied, WorkerPool, python_of_path

ROOT = Path(__file__).resolve().parents[2]


def work(item: tuple[int, str]) -> int:
    """The number; its file's text says how often the process is killed first."""
    number, path = item
    if path:
        kills = int(Path(path).read_text())
        if kills:
            Path(path).write_text(str(kills - 1))
            os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    made = WorkerPool(2)
    yield made
    made.close()


@pytest.mark.parametrize("path", ["/nowhere", None])
def test_python_is_this_interpreter_in_its_environment_where_the_path_has_none(
    path: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beam starts workers as `python`: where only `python3.11` is there, a job waited for ever."""
    monkeypatch.delenv("PATH")
    if path is not None:
        monkeypatch.setenv("PATH", path)
    with python_of_path():
        said = subprocess.run(
            ["python", "-c", "import sys; print(sys.prefix, sys.argv[1:])", "a b", "*"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    assert said == f"{sys.prefix} ['a b', '*']\n"
    assert os.environ.get("PATH") == path


@pytest.mark.medium
def test_a_killed_worker_is_tried_again_and_what_kills_twice_is_left_out(
    pool: WorkerPool, tmp_path: Path
) -> None:
    """Issue 19, 18: one killed worker ended the run."""
    (tmp_path / "once").write_text("1")
    (tmp_path / "always").write_text("99")
    kills = {7: str(tmp_path / "once"), 12: str(tmp_path / "always"), 13: str(tmp_path / "always")}
    items = [(number, kills.get(number, "")) for number in range(20)]
    results = list(pool.map(work, items))
    assert [number for number, each in enumerate(results) if isinstance(each, WorkerDied)] == [
        12,
        13,
    ]
    assert [each for each in results if not isinstance(each, WorkerDied)] == [
        number for number in range(20) if number not in (12, 13)
    ]
    assert list(pool.map(work, [(1, ""), (2, "")])) == [1, 2]


@pytest.mark.medium
def test_a_process_that_a_broken_pool_does_not_end_is_not_waited_for(
    pool: WorkerPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is being started as another dies is not ended: a run waited for it for ever."""
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "terminate", lambda process: None)
    monkeypatch.setattr(_ExecutorManagerThread, "shutdown_workers", lambda thread: None)
    (tmp_path / "once").write_text("1")
    items = [(number, str(tmp_path / "once") if number == 3 else "") for number in range(8)]
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.extend(pool.map(work, items)), daemon=True)
    thread.start()
    thread.join(60)
    assert found == list(range(8))


_POOL = """
import os, sys, time
from vladmap.photos.processes import WorkerPool
from tests.photos.test_processes import hang
if __name__ == "__main__":
    list(WorkerPool(2).map(hang, [sys.argv[1]] * 2))
"""
_CHILD = """
import sys
from vladmap.mapping.child import call
from tests.photos.test_processes import hang
if __name__ == "__main__":
    call(hang, sys.argv[1], time_limit_s=60)
"""


def hang(folder: str) -> None:
    Path(folder, str(os.getpid())).touch()
    time.sleep(60)


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _until(condition: object, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
@pytest.mark.parametrize(("program", "workers"), [(_POOL, 2), (_CHILD, 1)])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_when_their_parent_is_killed(
    program: str, workers: int, end: signal.Signals, tmp_path: Path
) -> None:
    """Issue 19, 18: SIFT's workers and COLMAP's children went on without it."""
    script, marks = tmp_path / "program.py", tmp_path / "marks"
    script.write_text(program)
    marks.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(script), str(marks)], env=environment)
    pids: list[int] = []
    try:
        assert _until(lambda: len(list(marks.iterdir())) == workers), "the workers never started"
        pids = [int(mark.name) for mark in marks.iterdir()]
        assert all(_alive(pid) for pid in pids)
        parent.send_signal(end)
        parent.wait()
        assert _until(lambda: not any(_alive(pid) for pid in pids), 10)
    finally:
        parent.kill()
        for pid in pids:
            if _alive(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("program", [_POOL, _CHILD])
def test_workers_leave_an_interruption_to_their_parent(program: str, tmp_path: Path) -> None:
    """Issue 19, 18: Ctrl-C reaches the whole group; each worker printed a traceback of its own."""
    script, marks = tmp_path / "program.py", tmp_path / "marks"
    script.write_text(program)
    marks.mkdir()
    parent = subprocess.Popen(
        [sys.executable, str(script), str(marks)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert _until(lambda: bool(list(marks.iterdir())))
        pids = [int(mark.name) for mark in marks.iterdir()]
        for pid in pids:
            os.kill(pid, signal.SIGINT)
        time.sleep(0.3)
        assert all(_alive(pid) for pid in pids)
    finally:
        parent.kill()
    assert "Traceback" not in parent.communicate()[1]
