"""What the user or the machine did is one line; what vladmap did is a traceback."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import apache_beam as beam
import pytest

from tests.drives import write_drive
from vladmap.jobs.command import guarded
from vladmap.jobs.failures import explained
from vladmap.jobs.main import main
from vladmap.schemas.rejects import UserError

pytestmark = pytest.mark.medium


def _code_and_line(work: object, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = guarded(work)  # type: ignore[arg-type]
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return code, lines[0]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "f.parquet: No space left on device; make room"),
        (errno.EDQUOT, "make room"),
        (errno.EROFS, "f.parquet: Read-only file system; choose a folder"),
        (errno.EACCES, "f.parquet: Permission denied; see its permissions"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EIO, "f.parquet: Input/output error"),
    ],
)
def test_what_the_machine_refuses_is_one_line(
    number: int, expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 21: a full disk and a read-only atlas were tracebacks."""

    def work() -> int:
        raise OSError(number, os.strerror(number), "/atlas/f.parquet")

    code, line = _code_and_line(work, capfd)
    assert code == 2
    assert expected in line


class _Fails(beam.DoFn):
    def __init__(self, error: Exception) -> None:
        self._error = error

    def process(self, element: int) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UserError("this photograph\nis not there"), "vladmap: this photograph is not there"),
        (OSError(errno.ENOSPC, "No space left on device", "/a/f"), "/a/f: No space left on device"),
        (MemoryError("400 GB"), "not enough memory (400 GB)"),
    ],
)
def test_what_a_worker_raises_is_said_once(
    error: Exception, expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 21: two tracebacks of Beam's went before the line, which ended in a step's name."""

    def work() -> None:
        pipeline = beam.Pipeline(runner="FnApiRunner")
        pipeline | beam.Create([1]) | "a step" >> beam.ParDo(_Fails(error))
        pipeline.run().wait_until_finish()

    code, line = _code_and_line(work, capfd)
    assert code == 2
    assert expected in line
    assert "while running" not in line


def test_what_a_worker_elsewhere_raised_is_found_in_its_text() -> None:
    """Issue 19, 21: a runner whose workers are processes hands on text alone."""
    text = (
        "Traceback (most recent call last):\n"
        '  File "apache_beam/runners/common.py", line 604\n'
        "vladmap.schemas.rejects.UserError: a GPU was asked for "
        "[while running 'describe/ParDo(_X)']\n\n"
        "During handling of the above exception, another exception occurred:\n\n"
        "Traceback (most recent call last):\n"
        "vladmap.schemas.rejects.UserError: a GPU was asked for "
        "[while running 'a'] [while running 'b']\n"
    )
    assert explained(RuntimeError(text)) == "a GPU was asked for"
    disk = "Traceback\nOSError: [Errno 28] No space left on device: '/a/f' [while running 'x']"
    assert explained(RuntimeError(disk)) == "[Errno 28] No space left on device: '/a/f'"


def test_an_error_of_vladmaps_own_stays_one() -> None:
    """It must not be taken for the user's because an older one lies behind it."""
    error = KeyError("key")
    error.__context__ = FileNotFoundError(errno.ENOENT, "No such file or directory", "x")
    assert explained(error) is None
    assert explained(RuntimeError("something else")) is None


def test_the_log_file_keeps_the_traceback_of_what_was_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 20: --log-file."""
    from vladmap.jobs.command import log_options, parser

    path = tmp_path / "log"

    def work() -> None:
        raise UserError("no")

    parsed = parser("x", "").parse_args(["--log-file", str(path)])
    assert guarded(work, log_options(parsed)) == 2
    assert capfd.readouterr().err == "vladmap: no\n"
    assert re.search(r"DEBUG vladmap: .*\nTraceback", path.read_text())


def test_a_log_file_that_cannot_be_written_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 21."""
    from vladmap.jobs.command import log_options, parser

    parsed = parser("x", "").parse_args(["--log-file", str(tmp_path / "no" / "log")])
    assert guarded(lambda: 0, log_options(parsed)) == 2
    assert "cannot be written" in capfd.readouterr().err


def test_a_file_that_cannot_grow_ends_an_ingest_in_one_line(tmp_path: Path) -> None:
    """Issue 19, 21: as on a full disk, in a run of its own."""
    write_drive(tmp_path / "drive", 3)
    program = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "from vladmap.jobs.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["ingest", "-q", "--images", str(tmp_path / "drive"), "--atlas", str(tmp_path / "a")]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "File too large" in done.stderr


def test_an_atlas_in_a_closed_folder_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 21: a folder that may be read but not entered."""
    write_drive(tmp_path / "drive", 2)
    (tmp_path / "closed").mkdir()

    listed = os.listdir

    def refuse(path: str) -> list[str]:
        if str(path).startswith(str(tmp_path / "closed")):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr("vladmap.atlas.store.os.listdir", refuse)
    words = ["--images", str(tmp_path / "drive"), "--atlas", str(tmp_path / "closed")]
    assert main(["build", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "closed: Permission denied; see its permissions" in lines[0]
