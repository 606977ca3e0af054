"""`vladmap export --to geojson`: read back by GDAL's reader, positions and headings worked out."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest

from tests.exports.test_colmap import write_atlas
from vladmap.jobs.main import main


def test_each_photograph_of_the_model_is_a_point_where_poses_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas = write_atlas(tmp_path, monkeypatch)
    words = ["--atlas", str(atlas), "--to", "geojson", "--output", str(tmp_path / "out")]
    assert main(["export", *words]) == 0
    exported = geopandas.read_file(tmp_path / "out" / "poses.geojson").set_index("name")
    poses = geopandas.read_parquet(atlas / "poses.parquet").set_index("name")
    assert sorted(exported.index) == sorted(poses.index)
    poses = poses.loc[exported.index]
    assert np.abs(exported.geometry.x - poses["longitude"]).max() < 1e-8
    assert np.abs(exported.geometry.y - poses["latitude"]).max() < 1e-8
    assert np.abs(exported.geometry.z - poses["altitude"]).max() < 1e-3
    assert list(exported["points"]) == list(poses["points"])
