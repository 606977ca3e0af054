"""What the source distribution and the wheel hold."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from tests.packaging.conftest import pip

pytestmark = pytest.mark.slow


def contents(wheel: Path) -> dict[str, int]:
    """Checksums of a wheel's files by name."""
    with zipfile.ZipFile(wheel) as archive:
        return {each.filename: each.CRC for each in archive.infolist()}


def rooms(checkout: Path) -> list[str]:
    """Folders of the project with code of the product."""
    folders = {path.parent.name for path in checkout.glob("*/__init__.py")}
    return sorted(folders - {"tests", "benchmarks", "vladmap"})


def test_the_wheel_holds_every_module_of_the_product_and_nothing_else(
    checkout: Path, wheel: Path
) -> None:
    wanted = {
        f"vladmap/{path.relative_to(checkout).as_posix()}"
        for room in rooms(checkout)
        for path in (checkout / room).rglob("*.py")
    }
    assert "vladmap/jobs/build.py" in wanted
    names = {name for name in contents(wheel) if name.endswith(".py")}
    public = {f"vladmap/{path.name}" for path in (checkout / "vladmap").glob("*.py")}
    assert names == wanted | public


def test_the_wheel_holds_the_files_that_the_product_reads(checkout: Path, wheel: Path) -> None:
    wanted = {
        f"vladmap/{path.relative_to(checkout).as_posix()}"
        for room in rooms(checkout)
        for path in (checkout / room).rglob("*")
        if path.is_file() and path.suffix != ".py"
    }
    assert "vladmap/models/weights/netvlad-lite.safetensors" in wanted
    assert "vladmap/pipeline/engines/flink.xml" in wanted
    assert {name for name in contents(wheel) if name.startswith("vladmap/")} >= wanted


def test_a_wheel_has_one_name_at_the_top(wheel: Path) -> None:
    tops = {PurePosixPath(name).parts[0] for name in contents(wheel)}
    [info] = tops - {"vladmap"}
    assert info.endswith(".dist-info")


def test_the_source_distribution_makes_the_same_wheel(sdist: Path, wheel: Path) -> None:
    folder = sdist.parents[1] / "from-sdist"
    pip("wheel", str(sdist), "--wheel-dir", str(folder), cwd=sdist.parent)
    [again] = folder.iterdir()
    assert contents(again) == contents(wheel)


def test_the_source_distribution_holds_no_tests(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        folders = {PurePosixPath(name).parts[1] for name in archive.getnames() if "/" in name}
    assert "jobs" in folders
    assert not folders & {"tests", "benchmarks", "docs", "build"}


def test_an_editable_install_says_no_warning(checkout: Path) -> None:
    """setuptools warns of every project whose packages are mapped to folders of other names."""
    said = pip(
        *("install", "--verbose", "--editable", "."),
        *("--target", str(checkout.parent / "editable")),
        cwd=checkout,
    )
    assert "Warning" not in said
    assert "!!" not in said
