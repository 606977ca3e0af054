"""The same pipeline on every runner that this machine has: the same tables, the same counts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.spark import stages
from vladmap.atlas.difference import compare_atlases
from vladmap.pipeline import spark
from vladmap.schemas.rejects import UserError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
COUNTS = {"images": 120, "shards": 6, "largest": 20}


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    # Workers are processes that import the packages from the folder they are started in.
    monkeypatch.chdir(ROOT)


@pytest.fixture
def expected(tmp_path: Path) -> Path:
    out = tmp_path / "in-process"
    metrics = stages.run(out, ["--runner=FnApiRunner"])
    assert metrics == {**COUNTS, "processes": {os.getpid()}}
    assert pq.read_table(out / "summary.parquet").column("n").to_pylist() == [30, 30, 30, 30]
    return out


def _differences(a: Path, b: Path) -> list[str]:
    return [what for table in compare_atlases(a, b) for what in table.differences]


def _needs_spark() -> None:
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on the PATH")


def test_spark_makes_the_tables_of_the_in_process_runner(tmp_path: Path, expected: Path) -> None:
    _needs_spark()
    with spark.spark_job_server("local[2]", log_file=tmp_path / "server.log") as options:
        metrics = stages.run(tmp_path / "spark", options)
        processes = metrics.pop("processes")
        again = stages.run(tmp_path / "again", options)
    assert metrics == COUNTS
    assert os.getpid() not in processes, "workers must be processes of their own"
    assert _differences(expected, tmp_path / "spark") == []
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


def test_a_job_server_that_cannot_start_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _needs_spark()
    with (
        pytest.raises(UserError, match="ended with status 1"),
        spark.spark_job_server(heap="nonsense", log_file=tmp_path / "server.log"),
    ):
        pytest.fail("the server cannot have started")
    assert "nonsense" in caplog.text
