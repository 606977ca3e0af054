"""`vladmap spark` and `vladmap flink`, without a job server: which job, its end, its exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from tests.city import ROOT
from vladmap.jobs import engines, main
from vladmap.pipeline.engines import server
from vladmap.pipeline.engines.engine import ENGINES

OPTIONS = ["--runner=PortableRunner", "--job_endpoint=localhost:1"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Programs that would have been run; each ends with the exit code in CODE."""
    programs: list[list[str]] = []

    @contextmanager
    def no_server(*_: object, **__: object) -> Iterator[list[str]]:
        yield OPTIONS

    def run(program: Sequence[str]) -> int:
        programs.append(list(program))
        return int(os.environ.get("CODE", "0"))

    monkeypatch.setattr(server, "job_server", no_server)
    monkeypatch.setattr(engines, "run", run)
    return programs


@pytest.mark.parametrize("engine", sorted(ENGINES))
@pytest.mark.parametrize("given", [["build"], ["vladmap", "build"]])
def test_a_job_is_run_with_the_server_s_options_before_its_own(
    engine: str, given: list[str], started: list[list[str]]
) -> None:
    """Before them: an option that is given twice has the value that the user gave it."""
    words = ["--images", "photos", "--atlas", "map", "--", "--unknown_to_us=1"]
    assert main.main([engine, "--heap", "1g", "--", *given, *words]) == 0
    assert started == [["-m", "vladmap.jobs.main", "build", *OPTIONS, *words]]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "name a job after a bare `--`, as in `vladmap spark -- build"),
        (["--"], "name a job after a bare `--`"),
        (["--", "biuld"], "'biuld' is no job that runs on an engine; did you mean build?"),
        (["--", "models"], "'models' is no job that runs on an engine"),
        (["build", "--images", "photos"], "unexpected word 'build'"),
    ],
)
def test_what_is_no_job_of_a_build_is_one_line_and_exit_code_2(
    given: list[str],
    said: str,
    started: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        code = main.main(["spark", *given])
    except SystemExit as end:
        code = int(str(end.code))
    assert code == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert started == []


@pytest.mark.parametrize("code", [1, 2, 130])
def test_the_job_s_exit_code_is_handed_on(
    code: int, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODE", str(code))
    assert main.main(["flink", "--", "report", "--atlas", "map"]) == code


HOLDER = "import sys\nfrom vladmap.jobs.engines import run\nsys.exit(run(['-c', sys.argv[1]]))\n"


@pytest.mark.medium
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_end_reaches_the_job_once_and_its_word_is_the_last(
    number: signal.Signals,
) -> None:
    """Issue 19, 18: it was killed, and could not say how to go on."""
    job = (
        "import signal, sys, time\n"
        "def end(number, frame):\n"
        "    print('ended', flush=True)\n"
        "    time.sleep(0.3)\n"
        "    sys.exit(128 + number)\n"
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, end)\n"
        "print('begun', flush=True)\n"
        "time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, job], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "begun\n"
    holder.send_signal(number)
    assert holder.stdout.read() == "ended\n"
    assert holder.wait() == 128 + number


@pytest.mark.medium
def test_a_job_ends_with_the_process_that_runs_it() -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, "import time\nprint('begun', flush=True)\ntime.sleep(60)"],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "begun\n"
    holder.kill()
    holder.wait()
    # Its output is closed by its end alone.
    assert holder.stdout.read() == ""
