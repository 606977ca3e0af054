"""check-atlas names what is wrong with an atlas, and repairs it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.drives import write_drive
from tests.pipeline.damaged import data_files, flip, options, unnoticed
from vladmap.atlas import storage
from vladmap.atlas.store import AtlasStore
from vladmap.jobs.main import main
from vladmap.pipeline import build as pipeline_build
from vladmap.schemas.records import sealed, unsealed


def checked(atlas: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["check-atlas", "--atlas", str(atlas), *words])
    return code, capsys.readouterr().out


def test_check_atlas_names_everything_that_is_wrong(
    grown: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 17: `vladmap verify-atlas` reads and checks everything, names what is damaged."""
    _, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)
    assert main(["verify-atlas", "--atlas", str(atlas)]) == 0
    assert "0 things are wrong" in capsys.readouterr().out
    before = data_files(atlas)
    flipped = sorted((atlas / "descriptors").rglob("*.parquet"))[0]
    flip(flipped)
    unnoticed(atlas, flipped)
    cut = sorted((atlas / "pairs").rglob("*.parquet"))[0]
    cut.write_bytes(cut.read_bytes()[:-1])
    missing = sorted((atlas / "images").rglob("*.parquet"))[0]
    missing.unlink()
    stray = atlas / "images" / "stray.parquet"
    shutil.copy(sorted((atlas / "images").rglob("*.parquet"))[0], stray)
    line = atlas / "ledger" / "scan" / "g0000-00000.json"
    flip(line)
    code, output = checked(atlas, capsys)
    assert code == 1
    for path in (flipped, cut, missing, stray, line):
        assert f"{path}: " in output
    # It only looks.
    assert {name: data for name, data in data_files(atlas).items() if name in before} == {
        name: (atlas / name).read_bytes() for name in before if (atlas / name).exists()
    }


def test_check_atlas_knows_rows_columns_and_ids(
    grown: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 17: parses, schema, row counts, cross-references."""
    _, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)

    def recommit(stage: str, table: pa.Table, rows: int | None = None) -> None:
        line = sorted((atlas / "ledger" / stage).glob("*.json"))[0]
        record = unsealed(line.read_bytes())
        file = storage.commit_table(str(atlas), record["file"], table)
        record |= {"bytes": file.bytes, "digest": file.digest}
        record["rows"] = file.rows if rows is None else rows
        line.write_bytes(sealed(record))

    path = sorted((atlas / "pairs").rglob("*.parquet"))[0]
    pairs = pq.read_table(path)
    foreign = pairs.set_column(0, pairs.schema.field(0), pa.array(["x"] * pairs.num_rows))
    for table, rows, words in (
        (foreign, None, "ids that images/ does not know (first: 'x')"),
        (pairs, 3, "rows, 3 were committed"),
        (pairs.drop_columns(["similarity"]), None, "its columns are not those of its table"),
    ):
        recommit("pair", table, rows)
        code, output = checked(atlas, capsys)
        assert code == 1
        assert words in output


def test_repair_says_what_it_needs_where_an_atlas_does_not_know_its_options(
    grown: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 17."""
    _, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)
    flip(sorted((atlas / "descriptors").rglob("*.parquet"))[0])
    before = data_files(atlas)
    assert main(["check-atlas", "--atlas", str(atlas), "--repair"]) == 2
    assert "run the same `vladmap build` again" in capsys.readouterr().err
    assert data_files(atlas) == before


def test_repair_opens_no_folder_whose_photographs_the_atlas_does_not_know(
    grown: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 16: an atlas does not say which files of its reader's are read."""
    _, whole = grown
    atlas, private = tmp_path / "atlas", tmp_path / "private"
    shutil.copytree(whole, atlas)
    write_drive(private, 3, seed=5)
    pipeline_build._keep_options(AtlasStore(str(atlas)), options(private, atlas))
    flip(sorted((atlas / "descriptors").rglob("*.parquet"))[0])
    assert main(["check-atlas", "--atlas", str(atlas), "--repair"]) == 2
    assert "say with --images" in capsys.readouterr().err
