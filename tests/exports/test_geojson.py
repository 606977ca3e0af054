"""`vladmap export --to geojson`: read back by GDAL's reader, positions and headings worked out."""

from __future__ import annotations

import math
from pathlib import Path

import geopandas
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.exports.test_colmap import write_atlas
from vladmap.exports.geojson import heading_deg
from vladmap.jobs.main import main


@pytest.mark.parametrize("heading", [0.0, 45.0, 90.0, 179.5, 270.0])
@pytest.mark.parametrize("roll", [0.0, 90.0])
def test_a_heading_is_that_of_the_optical_axis_however_the_camera_is_rolled(
    heading: float, roll: float
) -> None:
    turned = math.radians(heading)
    forward = np.array([math.sin(turned), math.cos(turned), 0.0])
    right = np.array([math.cos(turned), -math.sin(turned), 0.0])
    camera_from_enu = Rotation.from_matrix([right, [0.0, 0.0, -1.0], forward])
    x, y, z, w = (Rotation.from_euler("z", roll, degrees=True) * camera_from_enu).as_quat()
    assert heading_deg((w, x, y, z)) == pytest.approx(heading, abs=1e-9)


def test_a_camera_that_looks_straight_down_has_no_heading() -> None:
    assert heading_deg((0.0, 1.0, 0.0, 0.0)) is None


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
