"""The source distribution and the wheel of this checkout, and the wheel installed somewhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_NOT_COPIED = shutil.ignore_patterns(
    *(".*", "__pycache__", "*.egg-info", "build", "dist", "demo", "out", "shared", "target")
)


def command(*words: str, cwd: Path) -> str:
    """Run a command; returns both of its streams, and fails with them where it fails."""
    job = subprocess.run(
        words, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert job.returncode == 0, job.stdout
    return job.stdout


def pip(*words: str, cwd: Path) -> str:
    """Run pip without the network: with the setuptools of this environment."""
    offline = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    return command(sys.executable, "-m", "pip", *words, *offline, cwd=cwd)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout without what was built in it, in a folder with a space."""
    folder = tmp_path_factory.mktemp("packaging") / "a checkout"
    shutil.copytree(ROOT, folder, ignore=_NOT_COPIED)
    return folder


@pytest.fixture(scope="session")
def sdist(checkout: Path) -> Path:
    """The archive that Beam's `--setup_file ./setup.py` sends to its workers."""
    folder = checkout.parent / "sdist"
    command(sys.executable, "setup.py", "-q", "sdist", "-d", str(folder), cwd=checkout)
    [archive] = folder.iterdir()
    return archive


@pytest.fixture(scope="session")
def wheel(checkout: Path) -> Path:
    """The wheel of the checkout."""
    folder = checkout.parent / "wheel"
    pip("wheel", ".", "--wheel-dir", str(folder), cwd=checkout)
    [archive] = folder.iterdir()
    return archive


@pytest.fixture(scope="session")
def installed(wheel: Path) -> Path:
    """A folder that the wheel was installed into."""
    folder = wheel.parents[1] / "installed"
    pip("install", str(wheel), "--target", str(folder), cwd=wheel.parent)
    return folder
