"""`make bench-gpu` runs to its end without a GPU, and a part that fails ends nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.gpu import __main__ as bench
from benchmarks.gpu.inputs import SMALL
from benchmarks.gpu.table import LeftOut, Table
from vladmap.schemas.rejects import UserError


@pytest.mark.slow
def test_every_part_runs_in_small_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--device", "cpu", "--seconds", "100000"]) == 0
    printed = capsys.readouterr().out
    assert "There is no GPU here: no rate below is a GPU's." in printed
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    assert all(len(row) == 4 for row in rows)
    assert {row[0].strip("| ") for row in rows[1:]} == set(bench.PARTS) - {"prepare"}
    left_out = {row[0].strip("| ") for row in rows if row[1] == "left out"}
    assert left_out == {"decode", "agreement", "search", "recall"}  # of what needs a GPU, or photos
    rates = [row for row in rows if re.search(r"images/s|pairs/s|queries/s|vectors/s", row[2])]
    assert len(rates) > 25
    assert "failed: nothing" in printed


@pytest.mark.slow
def test_photographs_that_were_prepared_are_found_again(tmp_path: Path) -> None:
    words = ["--device", "cpu", "--small", "--only", "prepare", "--folder", str(tmp_path)]
    assert bench.main(words) == 0
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert sum(path.suffix == ".jpg" for path in made) == SMALL.images + SMALL.large
    assert bench.main(words) == 0
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == made


def test_a_part_that_fails_is_a_row_and_the_next_ones_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = Table()

    def fail() -> None:
        table.row("half of it", "1")
        raise RuntimeError("CUDA error:\n an illegal | access")

    def leave(error: Exception) -> None:
        raise error

    table.run("one", fail)
    table.run("two", lambda: leave(LeftOut("no GPU")))
    table.run("three", lambda: leave(UserError("no such package")))
    table.run("four", lambda: table.rate("all", 12345.6))
    assert table.failed == ["one"]
    assert capsys.readouterr().out.splitlines() == [
        "| one | half of it | 1 |  |",
        "| one | **failed** | RuntimeError | CUDA error: an illegal / access |",
        "| two | left out |  | no GPU |",
        "| three | left out |  | no such package |",
        "| four | all | 12,346 images/s |  |",
    ]


def test_after_the_time_no_part_begins_and_a_failed_one_is_the_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(bench, "PARTS", {"rerank": fail, "search": fail})
    assert bench.main(["--device", "cpu", "--seconds", "0"]) == 0
    assert capsys.readouterr().out.count("the time was over") == 2
    assert bench.main(["--device", "cpu", "--only", "search"]) == 1
    printed = capsys.readouterr().out
    assert "| search | **failed** | RuntimeError | broken |" in printed
    assert "failed: search" in printed
