"""What the tests of all rooms share: one rendered city and its atlases, made once in a run.

Tests read them and never write to them; `atlas_copy` is an atlas that a test may change. Under
pytest-xdist the first process that needs one makes it while the others wait.
"""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Set before numpy and torch are imported. A process on each core leaves none for threads.
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

import functools
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

_SHARED = ("rendered_city", "built_atlas", "tiled_atlas")

Snapshot = dict[str, tuple[int, int]]
MadeOnce = Callable[[str, Callable[[Path], object]], Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files with slow tests first: a long test that starts last leaves the other cores idle."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Where a collected test has imported Beam, let it look at the same things once only."""
    if "apache_beam" in sys.modules:
        from tests import beam_memo

        beam_memo.install()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """(name, make) -> the folder of that name, which `make` fills once in a run. Read only."""
    return functools.partial(_made_once, tmp_path_factory)


@pytest.fixture(scope="session")
def rendered_city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/ with 24 photographs of a street in two drives, and truth.parquet. Read only.

    Two drives, two cells: photographs without GPS are in the cell `none`.
    """
    from tests.city import write_city

    return _made_once(tmp_path_factory, "city", write_city)


@pytest.fixture(scope="session")
def built_atlas(tmp_path_factory: pytest.TempPathFactory, rendered_city: Path) -> Path:
    """The whole atlas of the rendered city: three shards of images, one tile. Read only."""
    from tests.city import build_atlas

    return _made_once(tmp_path_factory, "atlas", lambda to: build_atlas(rendered_city, to))


@pytest.fixture(scope="session")
def tiled_atlas(
    tmp_path_factory: pytest.TempPathFactory, rendered_city: Path, built_atlas: Path
) -> Path:
    """The built atlas, mapped again in tiles of at most 20 photographs. Read only."""
    from tests.city import TILE_IMAGES, build_atlas

    def make(folder: Path) -> None:
        shutil.copytree(built_atlas, folder)
        build_atlas(rendered_city, folder, "--tile-images", str(TILE_IMAGES))

    return _made_once(tmp_path_factory, "tiled", make)


@pytest.fixture
def atlas_copy(built_atlas: Path, tmp_path: Path) -> Path:
    """A copy of the built atlas that the test may change."""
    shutil.copytree(built_atlas, tmp_path / "atlas")
    return tmp_path / "atlas"


@pytest.fixture(autouse=True)
def _shared_folders_do_not_change(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test after which a folder that it shares with others is not what it was."""
    folders = [request.getfixturevalue(name) for name in _SHARED if name in request.fixturenames]
    yield
    for folder in folders:
        assert _snapshot(folder) == _read_snapshot(folder), f"a test changed {folder}"


def _made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name` of this run of pytest, made by the first process that asks for it."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # each worker has a folder of its own in that of the run
    home = base / f"shared-{name}"
    folder = home / name
    with FileLock(f"{home}.lock"):
        if not _snapshot_file(folder).exists():
            shutil.rmtree(home, ignore_errors=True)  # of a process that failed to make it
            home.mkdir()
            make(folder)
            _write_snapshot(folder)
    return folder


def _snapshot(folder: Path) -> Snapshot:
    """Size and time of change of each file; locks aside, which readers may take."""
    return {
        path.relative_to(folder).as_posix(): (stat.st_size, stat.st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
        for stat in [path.stat()]
    }


def _snapshot_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.snapshot")


def _write_snapshot(folder: Path) -> None:
    lines = [f"{size} {time} {name}\n" for name, (size, time) in _snapshot(folder).items()]
    _snapshot_file(folder).write_text("".join(lines))


def _read_snapshot(folder: Path) -> Snapshot:
    rows = (line.split(" ", 2) for line in _snapshot_file(folder).read_text().splitlines())
    return {name: (int(size), int(time)) for size, time, name in rows}
