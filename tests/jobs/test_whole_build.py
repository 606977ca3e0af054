"""The whole main job on a rendered city: right, resumable, readable by other tools."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.city import ROOT, build_atlas, build_command
from vladmap.evaluation.map_truth import read_truth
from vladmap.mapping.check import check_map

pytestmark = pytest.mark.slow


def tables(atlas: Path) -> dict[str, bytes]:
    """Everything committed; not the ledger's place for timings, nor what shows them."""
    return {
        str(path.relative_to(atlas)): path.read_bytes()
        for path in sorted(atlas.rglob("*"))
        if path.is_file()
        and path.relative_to(atlas).parts[0] not in {"work", "report", "ledger"}
        and path.name != "atlas.json"
    }


def distance_to_truth(city: Path, atlas: Path) -> dict[str, Any]:
    poses = pq.read_table(atlas / "poses.parquet")
    return check_map(poses, read_truth(str(city / "truth.parquet")))


def test_nearly_every_image_is_in_one_model_near_its_true_place(
    rendered_city: Path, built_atlas: Path
) -> None:
    result = distance_to_truth(rendered_city, built_atlas)
    assert result["share_in_largest"] >= 0.9
    # 24 positions with a noise of 3 m leave the map's own place uncertain by some metres.
    assert result["by_gps_m"]["median"] < 4.0
    assert result["aligned_m"]["median"] < 0.5


def test_cut_into_tiles_no_photograph_is_far_off(rendered_city: Path, tiled_atlas: Path) -> None:
    """Issue 19, 0: a collection larger than one tile came out torn."""
    tiles = {path.name for path in (tiled_atlas / "tiles").iterdir()} - {"all"}
    assert len(tiles) > 1
    result = distance_to_truth(rendered_city, tiled_atlas)
    assert result["share"] >= 0.5
    assert result["aligned_m"]["over_5_m"] == 0


def test_a_second_run_does_nothing_and_says_so(
    rendered_city: Path, built_atlas: Path, atlas_copy: Path
) -> None:
    assert "nothing to do: the atlas is up to date" in build_atlas(rendered_city, atlas_copy)
    assert tables(atlas_copy) == tables(built_atlas)


def test_a_build_killed_again_and_again_ends_in_the_same_tables(
    rendered_city: Path, built_atlas: Path, tmp_path: Path
) -> None:
    for mark in ("ledger/describe-*/*", "ledger/features-*/*", "ledger/verify/*"):
        process = subprocess.Popen(
            build_command(rendered_city, tmp_path / "atlas"),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            # The stage has committed its first shard of three.
            while not list((tmp_path / "atlas").glob(mark)):
                assert process.poll() is None
                time.sleep(0.02)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    build_atlas(rendered_city, tmp_path / "atlas")
    assert tables(tmp_path / "atlas") == tables(built_atlas)


def test_other_tools_read_the_atlas_without_vladmap(built_atlas: Path, tmp_path: Path) -> None:
    program = """
import sys
import time
import faiss, geopandas, pyarrow.parquet as pq, pycolmap
atlas = sys.argv[1]
images = geopandas.read_parquet(f"{atlas}/images")
poses = geopandas.read_parquet(f"{atlas}/poses.parquet")
assert str(images.crs) == str(poses.crs) == "OGC:CRS84"
model = pycolmap.Reconstruction(f"{atlas}/model/0")
assert model.num_reg_images() == (poses["model"] == 0).sum()
folder = f"{atlas}/index/netvlad-lite"
index = faiss.read_index(f"{folder}/global.faiss")
assert index.ntotal == pq.read_table(f"{folder}/ids.parquet").num_rows == len(images)
assert faiss.read_index(f"{folder}/places.faiss").ntotal == index.ntotal
for table in ("images", "descriptors/netvlad-lite", "features/sift", "pairs", "two_views"):
    assert pq.read_table(f"{atlas}/{table}").num_rows > 0
assert "vladmap" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(built_atlas)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
