"""Issue 19, 1 and 2: whole builds of a camera that only turns, and of real streets."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vladmap.jobs import build
from vladmap.mapping.evidence import MIN_POINTS

pytestmark = pytest.mark.slow

CASES = Path(__file__).parents[1] / "cases"
PHOTOS = Path(
    os.environ.get("VLADMAP_PHOTOS", Path(__file__).parents[2].parent / "shared" / "photos")
)

needs_photos = pytest.mark.skipif(
    not PHOTOS.is_dir(), reason=f"no real photographs in {PHOTOS}; see VLADMAP_PHOTOS"
)


def built(photos: Path, atlas: Path, capsys: pytest.CaptureFixture[str]) -> str:
    code = build.main(["--images", str(photos), "--atlas", str(atlas), "--threads", "2"])
    output = capsys.readouterr()
    assert code == 0, output.err
    return output.out


def test_a_camera_that_turns_on_its_tripod_registers_nothing_and_the_reason_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 1 (cases/rotation): GPS noise of three metres is no way travelled."""
    output = built(CASES / "rotation", tmp_path, capsys)
    assert "0 of 10 (0 %)" in output
    assert "no parallax: a turn on the spot explains every verified pair" in output
    assert pq.read_table(tmp_path / "poses.parquet").num_rows == 0
    assert not list((tmp_path / "model").rglob("*.bin"))
    listed = pq.read_table(tmp_path / "unregistered.parquet").to_pylist()
    assert len(listed) == 10
    assert all("no parallax" in row["detail"] for row in listed)
    [tile] = [json.loads(path.read_text()) for path in (tmp_path / "tiles").rglob("tile.json")]
    assert "a turn on the spot" in tile["failure"]
    assert len(tile["unregistered"]) == 10


@needs_photos
def test_six_wide_angle_photographs_are_a_fisheyes_and_all_registered_on_enough_points(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 2: the camera was tried on two of the six and stayed a pinhole."""
    built(PHOTOS / "larochelle", tmp_path, capsys)
    [camera] = [
        json.loads(path.read_text()) for path in (tmp_path / "work" / "cameras").glob("*.json")
    ]
    assert camera["images"] == 6
    assert "FISHEYE" in camera["camera"]["model"]
    poses = pq.read_table(tmp_path / "poses.parquet")
    assert poses.num_rows == 6
    assert min(poses["points"].to_pylist()) >= MIN_POINTS


@needs_photos
def test_a_street_with_a_black_frame_is_registered_but_for_that_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 1: what walks forward along one street has weak parallax, and has evidence."""
    photos, atlas = tmp_path / "photos", tmp_path / "atlas"
    shutil.copytree(PHOTOS / "lund", photos)
    black = Image.fromarray(np.zeros((768, 1024, 3), np.uint8))
    black.save(photos / "black.jpg")
    built(photos, atlas, capsys)
    poses = pq.read_table(atlas / "poses.parquet")
    assert poses.num_rows == 29
    assert min(poses["points"].to_pylist()) >= MIN_POINTS
    rejects = [
        row
        for path in sorted((atlas / "rejects").rglob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    assert {Path(row["uri"]).name for row in rejects} == {"black.jpg"}
