"""Issue 19, 3: a panorama is searched, never mapped as the picture of one lens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.drives import write_drive
from vladmap.atlas.store import AtlasStore
from vladmap.jobs import build
from vladmap.pipeline.local_features import extract_features
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import STAGES

pytestmark = pytest.mark.medium

CASES = Path(__file__).parents[1] / "cases" / "panoramas"
PANORAMAS = ["p00.jpg", "p01.jpg"]


def panoramas_in(folder: Path) -> Path:
    """One that says by GPano what it is, and one that does not."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PANORAMAS:
        shutil.copy(CASES / name, folder)
    return folder


def rejects(atlas: Path) -> list[dict[str, str]]:
    files = sorted((atlas / "rejects").rglob("*.parquet"))
    return [row for path in files for row in pq.read_table(path).to_pylist()]


def test_a_panorama_is_a_reject_of_verify_with_the_way_out_and_others_have_features(
    tmp_path: Path,
) -> None:
    photos = panoramas_in(tmp_path / "photos")
    write_drive(photos, 3)
    options = BuildOptions(images=str(photos), atlas=str(tmp_path / "atlas"), max_reject_rate=0.1)
    run = Run(AtlasStore.open(str(tmp_path / "atlas"), create=True), options)
    STAGES["ingest"].work(run)
    extract_features(run)  # two of five would be more than a tenth
    rows = rejects(tmp_path / "atlas")
    assert {Path(row["uri"]).name for row in rows} == set(PANORAMAS)
    assert {(row["stage"], row["reason"]) for row in rows} == {("verify", "panorama")}
    assert all("equirectangular" in row["detail"] for row in rows)
    assert all("views of 90 degrees or less" in row["detail"] for row in rows)
    assert pq.read_table(tmp_path / "atlas" / "features" / "sift").num_rows == 3


@pytest.mark.slow
def test_a_drive_with_panoramas_in_it_is_mapped_without_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, atlas = panoramas_in(tmp_path / "photos"), tmp_path / "atlas"
    write_drive(photos, 4)
    code = build.main(["--images", str(photos), "--atlas", str(atlas), "--threads", "1"])
    assert code == 0, capsys.readouterr().err
    ids = dict(
        zip(*(pq.read_table(atlas / "images")[name].to_pylist() for name in ("name", "image_id")),
            strict=True)
    )  # fmt: skip
    spherical = {ids[name] for name in PANORAMAS}
    for searched in ("descriptors/netvlad-lite", "index/netvlad-lite/ids.parquet"):
        assert spherical <= set(pq.read_table(atlas / searched)["image_id"].to_pylist())
    two_views = pq.read_table(atlas / "two_views")
    mapped = {*two_views["image_id_a"].to_pylist(), *two_views["image_id_b"].to_pylist()}
    mapped |= set(pq.read_table(atlas / "poses.parquet")["image_id"].to_pylist())
    assert mapped
    assert not spherical & mapped
    cameras = [json.loads(path.read_text()) for path in (atlas / "work/cameras").glob("*.json")]
    assert [(output["camera"]["width"], output["camera"]["height"]) for output in cameras] == [
        (256, 192)
    ]


@pytest.mark.slow
def test_a_collection_of_panoramas_alone_ends_well_and_lists_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, atlas = panoramas_in(tmp_path / "photos"), tmp_path / "atlas"
    for _ in range(2):
        code = build.main(["--images", str(photos), "--atlas", str(atlas), "--threads", "1"])
        output = capsys.readouterr()
        assert code == 0, output.err
        assert "panorama" in output.out
        assert pq.read_table(atlas / "poses.parquet").num_rows == 0
        listed = pq.read_table(atlas / "unregistered.parquet").to_pylist()
        assert sorted(row["name"] for row in listed) == PANORAMAS
        assert all(row["reason"] == "panorama" for row in listed)
        assert not list((atlas / "model").rglob("*.bin"))
