"""A whole build on each engine: the tables of one in this machine's processes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.city import ROOT, build_words
from vladmap.atlas.difference import compare_atlases
from vladmap.pipeline.engines.engine import ENGINES

pytestmark = pytest.mark.slow


@pytest.mark.skipif(
    shutil.which("java") is None or shutil.which("mvn") is None, reason="no java or no mvn"
)
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_build_on_an_engine_gives_the_tables_of_one_in_process(
    engine: str, rendered_city: Path, built_atlas: Path, tmp_path: Path
) -> None:
    words = ["-m", "vladmap.jobs.main", engine, "--server-log", str(tmp_path / "log"), "--"]
    job = subprocess.run(
        [sys.executable, *words, *build_words(rendered_city, tmp_path / "atlas")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert job.returncode == 0, job.stderr
    tables = compare_atlases(built_atlas, tmp_path / "atlas")
    assert {"images", "pairs", "poses.parquet", "model"} <= {table.name for table in tables}
    assert [what for table in tables for what in table.differences] == []
