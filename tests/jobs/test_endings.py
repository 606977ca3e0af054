"""How a run ends that somebody stops."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.medium

ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = """
import sys
from vladmap.jobs.command import guarded, leave
from vladmap.mapping.child import call
from vladmap.photos.processes import WorkerPool
from tests.photos.test_processes import hang


def pooled(folder):
    pool = WorkerPool(2)
    try:
        list(pool.map(hang, [folder] * 2))
    finally:
        pool.close()


def in_child(folder):
    call(hang, folder, time_limit_s=60)


def work(folder, alone):
    call(hang, folder, time_limit_s=60)


def side_by_side(folder):
    from vladmap.photos import side_by_side as module

    list(module.side_by_side(work, [module.Job(folder, 1)] * 3, 2))


def in_beam(folder):
    import apache_beam as beam

    pipeline = beam.Pipeline(runner="FnApiRunner")
    pipeline | beam.Create([folder]) | beam.Map(pooled)
    pipeline.run().wait_until_finish()


if __name__ == "__main__":
    leave(lambda: guarded(lambda: globals()[sys.argv[1]](sys.argv[2])))
"""


def _living(group: int) -> list[str]:
    """Command lines of the group's processes that have not ended."""
    commands = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, its_group = (path / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                commands.append((path / "cmdline").read_text())
    return commands


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
@pytest.mark.parametrize("where", ["pooled", "in_child", "side_by_side", "in_beam"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_stopped_run_ends_in_one_line_with_its_signals_code(
    where: str, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """Issue 19, 18: Ctrl-C in features was a traceback, SIGTERM left workers behind."""
    script, marks = tmp_path / "program.py", tmp_path / "marks"
    script.write_text(_PROGRAM)
    marks.mkdir()
    process = subprocess.Popen(
        [sys.executable, str(script), where, str(marks)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not list(marks.iterdir()):
            assert process.poll() is None
            time.sleep(0.05)
        # As a terminal does: to the whole group.
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        errors = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == code
    assert errors.splitlines() == ["vladmap: interrupted; the same command goes on from here"]
    assert not list(tmp_path.glob("vladmap-*")), "no scratch folder stays behind"
    end = time.monotonic() + 10
    while (left := _living(process.pid)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left


def test_an_ending_that_is_not_heard_in_time_ends_the_process(tmp_path: Path) -> None:
    """Issue 19, 18: a library that holds on to the run does not keep it alive."""
    script = tmp_path / "program.py"
    script.write_text(
        "import time\n"
        "from vladmap.jobs import command\n"
        "command._PATIENCE_S = 0.2\n"
        "def deaf():\n"
        "    print('ready', flush=True)\n"
        "    while True:\n"
        "        try:\n"
        "            time.sleep(60)\n"
        "        except KeyboardInterrupt:\n"
        "            pass\n"
        "command.leave(lambda: command.guarded(deaf))\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 143
    assert errors.splitlines() == ["vladmap: interrupted; the same command goes on from here"]


_PROCESSES = """
import sys
import apache_beam as beam
from vladmap.pipeline import launch
from tests.photos.test_processes import hang

if __name__ == "__main__":
    words = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    launch.run(words, "a", lambda pipeline: pipeline | beam.Create([sys.argv[1]]) | beam.Map(hang))
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_beams_own_processes_end_when_the_run_is_killed(tmp_path: Path) -> None:
    """Issue 19, 18: they went on, with their models in memory."""
    script, marks = tmp_path / "program.py", tmp_path / "marks"
    script.write_text(_PROCESSES)
    marks.mkdir()
    process = subprocess.Popen(
        [sys.executable, str(script), str(marks)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not list(marks.iterdir()):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
        process.wait()
        end = time.monotonic() + 10
        while (left := _living(process.pid)) and time.monotonic() < end:
            time.sleep(0.05)
        assert not left
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
