"""Damaged atlases: what was lost or altered is noticed, named and made again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.drives import write_drive
from tests.pipeline.test_stages import build, done, files


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A collection that grew once, and its atlas up to the pairs: two generations."""
    folder = tmp_path_factory.mktemp("grown")
    for start, count in ((0, 8), (8, 4)):
        write_drive(folder / "photos", count, start=start)
        build(folder / "photos", folder / "atlas")
    return folder / "photos", folder / "atlas"


@pytest.mark.parametrize("lost", ["g0000", "g0001"])
def test_a_lost_plan_is_made_again_under_its_own_name_and_nothing_else_is(
    grown: tuple[Path, Path], tmp_path: Path, lost: str
) -> None:
    """Issue 19, 17: a plan named by count collided with the next one, and ids stood twice."""
    photos, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)
    (atlas / "ledger" / "plan" / f"{lost}.json").unlink()
    run = build(photos, atlas)
    assert set(done(run).values()) == {0}
    assert files(atlas) == files(whole)


def test_without_its_work_folder_an_atlas_holds_each_image_once(
    grown: tuple[Path, Path], tmp_path: Path
) -> None:
    """Issue 19, 17: `work/` can be lost."""
    photos, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)
    shutil.rmtree(atlas / "work")
    build(photos, atlas)
    for table in ("images", "descriptors/netvlad-lite"):
        ids = pq.read_table(atlas / table)["image_id"].to_pylist()
        assert sorted(ids) == sorted(pq.read_table(whole / table)["image_id"].to_pylist())
