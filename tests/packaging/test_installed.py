"""The installed product, beside a user's own models.py, pipeline.py, jobs.py and schemas.py."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.drives import write_drive
from tests.packaging.conftest import ROOT

pytestmark = pytest.mark.slow

THEIRS = ("atlas", "features", "jobs", "models", "pipeline", "schemas", "transforms")
SLOW = {
    *("apache_beam", "faiss", "numpy", "pandas", "PIL", "pyarrow", "pycolmap", "scipy", "torch"),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder, whose modules have names that rooms of the product have, too."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in THEIRS:
        (folder / f"{name}.py").write_text("WHOSE = 'the user'\n")
    return folder


def run(
    installed: Path, project: Path, *words: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in the user's folder, with the installed product and not this checkout."""
    job = subprocess.run(
        words,
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(installed), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert job.returncode == 0, job.stderr
    return job


@pytest.mark.parametrize("page", ["localisation-team.md", "python.md"])
def test_the_documented_snippets_run_beside_a_user_s_modules(
    page: str, installed: Path, project: Path, rendered_city: Path, built_atlas: Path
) -> None:
    """Issue 20, 7: installed, vladmap took `models`, `jobs`, ... as top-level imports."""
    text = (ROOT / "docs" / page).read_text()
    snippets = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert any("vladmap" in snippet for snippet in snippets)
    (project / "atlas").symlink_to(built_atlas)
    (project / "query.jpg").symlink_to(next(rendered_city.rglob("*.jpg")))
    program = [
        "import numpy, PIL.Image",
        "pixels = numpy.asarray(PIL.Image.open('query.jpg').convert('RGB'))",
        *snippets,
        "import vladmap",
        f"assert vladmap.__file__.startswith({str(installed)!r}), vladmap.__file__",
        f"import {', '.join(THEIRS)}",
        *(f"assert {name}.WHOSE == 'the user'" for name in THEIRS),
    ]
    run(installed, project, sys.executable, "-c", "\n".join(program))


def test_every_module_can_be_imported(installed: Path, project: Path) -> None:
    names = sorted(
        ".".join(path.relative_to(installed).with_suffix("").parts).removesuffix(".__init__")
        for path in (installed / "vladmap").rglob("*.py")
    )
    assert "vladmap.jobs.build" in names
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    file = importlib.import_module(name).__file__\n"
        f"    assert file.startswith({str(installed)!r}), file\n"
    )
    run(installed, project, sys.executable, "-c", program, *names)


def test_help_imports_nothing_slow(installed: Path, project: Path) -> None:
    script = installed / "bin" / "vladmap"
    job = run(installed, project, str(script), "--help", PYTHONPROFILEIMPORTTIME="1")
    assert "build" in job.stdout
    imported = {line.rpartition("|")[2].strip() for line in job.stderr.splitlines()}
    assert "vladmap.jobs.main" in imported
    assert not {name.partition(".")[0] for name in imported} & SLOW


def test_beam_s_own_processes_import_the_installed_product(installed: Path, project: Path) -> None:
    write_drive(project / "photos", 3)
    run(
        *(installed, project, str(installed / "bin" / "vladmap"), "ingest"),
        *("--images", "photos", "--atlas", "map"),
        *("--direct_running_mode=multi_processing", "--direct_num_workers=2"),
    )
    assert pq.read_table(project / "map" / "images").num_rows == 3


@pytest.mark.skipif(
    shutil.which("java") is None or shutil.which("mvn") is None, reason="no java or no mvn"
)
@pytest.mark.parametrize("engine", ["spark", "flink"])
def test_engines_run_the_installed_product(engine: str, installed: Path, project: Path) -> None:
    """Issue 21, 13: the Maven project of the job server was in the checkout alone."""
    write_drive(project / "photos", 3)
    script = str(installed / "bin" / "vladmap")
    words = ["ingest", "--images", "photos", "--atlas", "map"]
    job = run(installed, project, script, engine, "--", *words)
    assert "ingest: 3 images" in job.stderr
    assert pq.read_table(project / "map" / "images").num_rows == 3


@pytest.mark.parametrize("module", ["vladmap.jobs.build", "jobs.build", "vladmap.jobs.main"])
def test_jobs_are_modules_of_a_checkout(checkout: Path, project: Path, module: str) -> None:
    program = "-m", module, "--help"
    job = subprocess.run(
        [sys.executable, *program], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert job.returncode == 0, job.stderr
    assert "usage: vladmap" in job.stdout
