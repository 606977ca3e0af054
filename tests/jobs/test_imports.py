"""What a job does not need it does not load: a process of torch takes half a gigabyte."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.drives import write_drive
from vladmap.photos.processes import with_this_package

_PROGRAM = """
import sys
from vladmap.jobs.main import main
code = main(sys.argv[1:])
print(sorted({"torch", "faiss", "pycolmap"} & set(sys.modules)))
sys.exit(code)
"""


@pytest.mark.medium
def test_ingest_in_a_fresh_process_never_imports_torch_faiss_or_colmap(tmp_path: Path) -> None:
    """Issue 21, 12: neither where it reads photographs nor where there is nothing to do."""
    write_drive(tmp_path / "photos", 5)
    words = ["ingest", "--images", str(tmp_path / "photos"), "--atlas", str(tmp_path / "atlas")]
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *words],
            check=True, capture_output=True, text=True, env=with_this_package(),
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == "[]"
    assert list((tmp_path / "atlas" / "images").rglob("*.parquet"))


@pytest.mark.medium
@pytest.mark.parametrize("module", ["ingest", "index", "pair", "verify"])
def test_a_transform_that_runs_no_network_imports_no_torch(module: str) -> None:
    """Workers import the module of their transform."""
    program = f"import sys, vladmap.transforms.{module}; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True, capture_output=True, text=True, env=with_this_package(),
    )  # fmt: skip
    assert done.stdout.split()[-1] == "False"


@pytest.mark.medium
def test_a_process_that_extracts_sift_loads_neither_beam_nor_torch() -> None:
    """One is started for each core, and loads what the function that it is given stands beside."""
    program = (
        "import sys\n"
        "from vladmap.atlas.extracting import extract_photo\n"
        "from vladmap.features.registry import load_extractor\n"
        "load_extractor('sift')\n"
        "print(sorted({'torch', 'apache_beam', 'faiss'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True, capture_output=True, text=True, env=with_this_package(),
    )  # fmt: skip
    assert done.stdout.split()[-1] == "[]"
