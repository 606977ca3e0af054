"""`--sequence-gap-s` and `--sequence-gap-m`, from the command line to the table of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from tests.drives import write_drive
from vladmap.jobs.main import main

pytestmark = pytest.mark.medium

GAP = 4


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of four photographs each, a second and 2 m apart; 5 s and 11 m lie between them."""
    folder = tmp_path_factory.mktemp("photos")
    write_drive(folder / "drive", 4)
    write_drive(folder / "drive", 4, start=4 + GAP)
    return folder


def sequences(photos: Path, atlas: Path, words: Sequence[str]) -> list[list[int]]:
    """The photographs of each sequence, as numbers, in their order."""
    command = ["ingest", "--images", str(photos), "--atlas", str(atlas), *words]
    assert main(command) == 0
    columns = ["name", "sequence_id", "sequence_index"]
    rows = ds.dataset(atlas / "images", format="parquet").to_table(columns=columns).to_pylist()
    runs: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        number = int(Path(row["name"]).stem)
        runs.setdefault(row["sequence_id"], []).append((row["sequence_index"], number))
    assert all(
        [place for place, _ in sorted(run)] == list(range(len(run))) for run in runs.values()
    )
    return sorted([number for _, number in sorted(run)] for run in runs.values())


@pytest.mark.parametrize(
    ("words", "split"),
    [
        ([], False),
        (["--sequence-gap-s", "5.5"], False),
        (["--sequence-gap-s", "4.5"], True),
        (["--sequence-gap-m", "12"], False),
        (["--sequence-gap-m", "9"], True),
        (["--sequence-gap-s", "5.5", "--sequence-gap-m", "9"], True),
        (["--sequence-gap-s", "4.5", "--sequence-gap-m", "12"], True),
    ],
)
def test_a_drive_is_cut_where_either_gap_is_longer(
    drive: Path, tmp_path: Path, words: list[str], split: bool
) -> None:
    first, second = [0, 1, 2, 3], [8, 9, 10, 11]
    expected = [first, second] if split else [first + second]
    assert sequences(drive, tmp_path / "atlas", words) == expected


def test_a_changed_gap_cuts_the_same_atlas_anew(drive: Path, tmp_path: Path) -> None:
    atlas = tmp_path / "atlas"
    assert len(sequences(drive, atlas, [])) == 1
    assert len(sequences(drive, atlas, ["--sequence-gap-m", "9"])) == 2
    assert len(sequences(drive, atlas, ["--sequence-gap-m", "1"])) == 8
    assert len(sequences(drive, atlas, [])) == 1
