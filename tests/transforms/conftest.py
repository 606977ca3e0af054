from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.transforms.alone import STEPS, Atlas, Counters, files, write_collection


@pytest.fixture(scope="session")
def made(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Atlas, dict[str, Counters], dict[str, bytes]]:
    """An atlas made transform by transform, the counters of each, and its files; read only."""
    folder = tmp_path_factory.mktemp("alone")
    write_collection(folder / "photos")
    (folder / "atlas").mkdir()
    atlas = Atlas(folder / "atlas", folder / "photos")
    counters = {step.__name__: atlas.run(step)[1] for step in STEPS}
    return atlas, counters, files(atlas.root)


@pytest.fixture
def atlas(made: tuple[Atlas, object, object], tmp_path: Path) -> Atlas:
    """A copy of that atlas, which a test may change."""
    shutil.copytree(made[0].root, tmp_path / "atlas")
    return Atlas(tmp_path / "atlas", made[0].photos)
