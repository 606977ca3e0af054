"""The atlas directory: one run at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.drives import write_drive
from vladmap.atlas.manifest import schema_version
from vladmap.atlas.store import AtlasStore
from vladmap.console.progress import counted
from vladmap.jobs.build import main
from vladmap.schemas.rejects import UserError

HOLD = """
import sys
from vladmap.atlas.store import AtlasStore
with AtlasStore(sys.argv[1]).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_on_an_atlas_is_told_of_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_drive(tmp_path / "photos", 2)
    atlas = tmp_path / "atlas"
    with AtlasStore.open(str(atlas), create=True).locked():
        code = main(["--images", str(tmp_path / "photos"), "--atlas", str(atlas)])
    assert code == 2
    assert "another run is at work on" in capsys.readouterr().err


def test_the_lock_of_a_killed_run_is_gone(tmp_path: Path) -> None:
    atlas = AtlasStore.open(str(tmp_path / "atlas"), create=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, atlas.root],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another run"), atlas.locked():
            pytest.fail("two runs hold one atlas")
        holder.kill()
    with atlas.locked():
        pass


def test_one_of_a_thing_is_singular() -> None:
    assert [counted(1, "tiles"), counted(2, "tiles"), counted(1, "indices")] == [
        "1 tile", "2 tiles", "1 index",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["1e400", "[1]", '"x"', "null", "{}", "[" * 5000])
def test_a_schema_version_of_another_type_is_none(text: str) -> None:
    """Issue 19, 21: an infinite one was a traceback."""
    assert schema_version(f'{{"schema_version": {text}}}'.encode()) == 0
