"""The stage `coverage` of a whole build."""

from __future__ import annotations

import shutil
from pathlib import Path

import geopandas
import pyarrow.parquet as pq
import pytest

from tests.city import IMAGES
from vladmap.atlas.integrity import check_atlas
from vladmap.atlas.store import AtlasStore
from vladmap.pipeline.build import kept_options, run_stages

pytestmark = pytest.mark.slow


def test_the_cells_of_an_atlas_hold_all_its_photographs_and_poses(built_atlas: Path) -> None:
    cells = geopandas.read_parquet(built_atlas / "coverage.parquet").set_index("cell")
    images = pq.read_table(built_atlas / "images").to_pandas()
    assert cells["images"].to_dict() == images.groupby("cell", observed=True).size().to_dict()
    assert cells["registered"].sum() == pq.read_table(built_atlas / "poses.parquet").num_rows
    assert cells["rejected"].sum() == 0
    assert cells["last_captured_at"].max() == images["captured_at"].max()
    assert cells.geometry.isna().to_dict() == {cell: cell == "none" for cell in cells.index}
    placed = geopandas.read_parquet(built_atlas / "images").dropna(subset="geometry")
    assert cells.loc[placed["cell"].astype(str), "geometry"].reset_index(drop=True).contains(
        placed.geometry.reset_index(drop=True)
    ).all()  # fmt: skip


def test_a_table_that_is_lost_is_the_same_again_and_one_that_is_there_is_left(
    atlas_copy: Path, tmp_path: Path
) -> None:
    shutil.copy(atlas_copy / "coverage.parquet", tmp_path / "before")
    (atlas_copy / "coverage.parquet").unlink()
    for elements in (IMAGES, 0):
        atlas = AtlasStore.open(str(atlas_copy), create=False)
        options = kept_options(atlas)
        assert options is not None
        options = type(options)(**{**vars(options), "atlas": str(atlas_copy)})
        (result,) = run_stages(atlas, options, (), ["coverage"]).results
        assert (result.stage, result.elements) == ("coverage", elements)
    assert (atlas_copy / "coverage.parquet").read_bytes() == (tmp_path / "before").read_bytes()
    assert check_atlas(AtlasStore.open(str(atlas_copy), create=False)) == []
