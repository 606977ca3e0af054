"""The same pipeline on every runner that this machine has: the same tables, the same counts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.pipeline.engines import stages
from vladmap.atlas.difference import compare_atlases
from vladmap.photos.processes import python_of_path
from vladmap.pipeline.engines.engine import ENGINES
from vladmap.pipeline.engines.server import job_server
from vladmap.pipeline.loopback import bind_to_loopback
from vladmap.schemas.rejects import UserError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
COUNTS = {"images": 120, "shards": 6, "largest": 20}


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Workers are processes that import the packages from the folder they are started in.
    monkeypatch.chdir(ROOT)
    with python_of_path():
        yield


@pytest.fixture
def expected(tmp_path: Path) -> Path:
    out = tmp_path / "in-process"
    metrics = stages.run(out, ["--runner=FnApiRunner"])
    assert metrics == {**COUNTS, "processes": {os.getpid()}}
    assert pq.read_table(out / "summary.parquet").column("n").to_pylist() == [30, 30, 30, 30]
    return out


def _differences(a: Path, b: Path) -> list[str]:
    return [what for table in compare_atlases(a, b) for what in table.differences]


def _needs_java() -> None:
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on the PATH")


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_an_engine_makes_the_tables_of_the_in_process_runner(
    engine: str, tmp_path: Path, expected: Path
) -> None:
    _needs_java()
    bind_to_loopback()
    with job_server(ENGINES[engine], log_file=tmp_path / "server.log") as options:
        metrics = stages.run(tmp_path / "first", options)
        processes = metrics.pop("processes")
        again = stages.run(tmp_path / "again", options)
    assert metrics == COUNTS
    assert os.getpid() not in processes, "workers must be processes of their own"
    assert _differences(expected, tmp_path / "first") == []
    assert _differences(expected, tmp_path / "again") == [], "one server, two pipelines"
    assert processes.isdisjoint(again["processes"])


def test_prism_makes_the_tables_of_the_in_process_runner(tmp_path: Path, expected: Path) -> None:
    prism = os.environ.get("VLADMAP_PRISM") or shutil.which("prism")
    if prism is None:
        pytest.skip("no prism on the PATH and VLADMAP_PRISM is not set")
    flags = ["--runner=PrismRunner", f"--prism_location={prism}", "--environment_type=LOOPBACK"]
    metrics = stages.run(tmp_path / "prism", flags)
    del metrics["processes"]
    assert metrics == COUNTS
    assert _differences(expected, tmp_path / "prism") == []


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_job_server_that_cannot_start_says_why(
    engine: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _needs_java()
    with (
        pytest.raises(UserError, match=f"{ENGINES[engine].title} job server ended with status 1"),
        job_server(ENGINES[engine], heap="nonsense", log_file=tmp_path / "server.log"),
    ):
        pytest.fail("the server cannot have started")
    assert "nonsense" in caplog.text


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_job_server_listens_on_the_loopback_interface_alone(
    engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue 19: it listened on all interfaces, and runs the code of whoever reaches it.

    127.0.0.2 is another address of this machine: what listens on all of them answers there.
    """
    _needs_java()
    with job_server(ENGINES[engine]) as options:
        addresses = [
            word.partition("=")[2] for word in options if word.partition("=")[0].endswith("point")
        ]
        assert len(addresses) == 2
        for address in addresses:
            port = int(address.rpartition(":")[2])
            socket.create_connection(("127.0.0.1", port), 5).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", port), 5)
    assert "all interfaces" not in caplog.text


def test_a_job_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Killed, that process stops nothing itself; the server would keep its memory for ever."""
    _needs_java()
    program = (
        "import time\n"
        "from vladmap.pipeline.engines.engine import ENGINES\n"
        "from vladmap.pipeline.engines.server import job_server\n"
        "with job_server(ENGINES['flink']) as options:\n"
        "    print(options[1].rpartition(':')[2], flush=True)\n"
        "    time.sleep(600)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert holder.stdout is not None
    port = int(holder.stdout.readline())
    socket.create_connection(("127.0.0.1", port), 5).close()
    holder.kill()
    holder.wait()
    deadline = time.monotonic() + 30
    while _answers(port) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _answers(port)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True
