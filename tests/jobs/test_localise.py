"""`vladmap localise` on the rendered city: poses, bad photographs, the table and its resuming."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vladmap import Atlas
from vladmap.geodesy.wgs84 import geodetic_to_ecef
from vladmap.jobs.main import main
from vladmap.pipeline import localise as module
from vladmap.schemas.localisation_tables import LOCALISATIONS

pytestmark = pytest.mark.medium

MAPPED = ("drive-0/000003.jpg", "drive-0/000008.jpg", "drive-1/000016.jpg")


@pytest.fixture
def queries(tmp_path: Path, rendered_city: Path) -> Path:
    """Three photographs of the map, and four that cannot be placed."""
    folder = tmp_path / "queries"
    for name in MAPPED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(rendered_city / "images" / name, folder / name)
    whole = (folder / MAPPED[0]).read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 3])
    Image.new("RGB", (480, 360)).save(folder / "black.jpg")
    noise = np.random.default_rng(0).integers(0, 256, (360, 480, 3), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    (folder / "text.jpg").write_text("not a photograph")
    return folder


def localised(queries: Path, atlas: Path, output: Path) -> dict[str, dict[str, Any]]:
    words = ["--atlas", str(atlas), "--images", str(queries), "--output", str(output)]
    assert main(["localise", *words]) == 0
    table = geopandas.read_parquet(output / "localisations")
    return {row["name"]: row for row in table.to_dict("records")}


def apart_m(row: dict[str, Any], pose: dict[str, Any]) -> float:
    here, there = (
        geodetic_to_ecef([each["latitude"], each["longitude"], each["altitude"]])
        for each in (row, pose)
    )
    return float(np.linalg.norm(here - there))


def test_every_photograph_has_its_row_and_those_of_the_map_lie_where_it_has_them(
    queries: Path, built_atlas: Path, tmp_path: Path
) -> None:
    rows = localised(queries, built_atlas, tmp_path / "found")
    poses = {row["name"]: row for row in Atlas(built_atlas).poses().to_dict("records")}
    assert {name: row["status"] for name, row in rows.items()} == {
        **dict.fromkeys(MAPPED, "pose"),
        **dict.fromkeys(["cut.jpg", "black.jpg", "noise.png", "text.jpg"], "unknown"),
    }
    for name in MAPPED:
        row, pose = rows[name], poses[name]
        assert apart_m(row, pose) < 0.05
        assert abs(sum(row[axis] * pose[axis] for axis in ("qw", "qx", "qy", "qz"))) > 1 - 1e-5
        assert row["place_name"] == name
        assert row["camera_source"] == "atlas"
        point = row["geometry"]
        assert (point.x, point.y) == (row["longitude"], row["latitude"])
    assert rows["cut.jpg"]["reason"] == "rejected"
    assert "truncated" in rows["cut.jpg"]["detail"]
    assert rows["text.jpg"]["reason"] == "rejected"
    assert rows["black.jpg"]["reason"] in ("no_features", "few_inliers")
    assert rows["noise.png"]["reason"] == "few_inliers"
    for name in ("cut.jpg", "black.jpg", "noise.png", "text.jpg"):
        assert np.isnan(rows[name]["latitude"])
        assert rows[name]["geometry"] is None


def test_a_second_run_does_what_is_new_and_forgets_what_has_gone(
    queries: Path,
    built_atlas: Path,
    rendered_city: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "SHARD_IMAGES", 2)
    output = tmp_path / "found"
    first = localised(queries, built_atlas, output)
    shards = {path.name: path.read_bytes() for path in (output / "localisations").iterdir()}
    assert len(shards) == 4
    assert len(first) == 7
    capsys.readouterr()
    localised(queries, built_atlas, output)
    assert "nothing to do, 7 images done before" in capsys.readouterr().err
    damaged = output / "localisations" / min(shards)
    damaged.write_bytes(shards[damaged.name][:-9])
    localised(queries, built_atlas, output)
    assert damaged.read_bytes() == shards[damaged.name]
    about = json.loads((output / "atlas.json").read_text())
    assert about["localised_in"] == str(built_atlas)
    shutil.copy(rendered_city / "images" / "drive-0" / "000005.jpg", queries / "new.jpg")
    (queries / "noise.png").unlink()
    rows = localised(queries, built_atlas, output)
    assert set(rows) == set(first) - {"noise.png"} | {"new.jpg"}
    assert rows["new.jpg"]["status"] == "pose"
    now = {path.name: path.read_bytes() for path in (output / "localisations").iterdir()}
    assert len(set(now.items()) & set(shards.items())) == 3  # all but that of which one has gone
    schema = pq.read_schema(next((output / "localisations").iterdir()))
    assert schema.names == LOCALISATIONS.names


def test_one_photograph_is_a_line_and_a_row_for_programs(
    queries: Path, built_atlas: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["localise", "--atlas", str(built_atlas), "--images", str(queries / MAPPED[1])]
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("000008.jpg: pose     ")
    assert main([*words, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["status"] == "pose"
    assert row["inliers"] >= 25
    assert len(row["covariance_m2"]) == 9
    assert main(["localise", "--atlas", str(built_atlas), "--images", str(queries), "-q"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 8
    assert told[-1] == "7 photographs: 3 pose, 0 place, 4 unknown"


def test_pixels_are_placed_without_their_header(built_atlas: Path, rendered_city: Path) -> None:
    """Neither GPS nor the camera is known: the focal length is estimated."""
    atlas = Atlas(built_atlas)
    localiser = atlas.localiser()
    with Image.open(rendered_city / "images" / MAPPED[0]) as photograph:
        row = localiser.locate(np.asarray(photograph))
    poses = {each["name"]: each for each in atlas.poses().to_dict("records")}
    assert row["status"] == "pose"
    assert row["camera_source"] == "estimated"
    assert apart_m(row, poses[MAPPED[0]]) < 1.0
    assert localiser.locate("nowhere.jpg")["reason"] == "rejected"


def test_what_cannot_work_is_said_in_a_line(
    queries: Path, built_atlas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["localise", "--images", str(queries)]
    copy = tmp_path / "copy"
    shutil.copytree(built_atlas, copy)
    assert main([*words, "--atlas", str(tmp_path / "none")]) == 2
    assert main([*words, "--atlas", str(built_atlas), "--output", str(copy)]) == 2
    assert main([*words, "--atlas", str(built_atlas), "--model", "vlad"]) == 2
    both = ["--output", str(tmp_path / "found"), "--page", str(tmp_path / "page.html")]
    assert main([*words, "--atlas", str(built_atlas), *both]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in said] == ["vladmap"] * 4
    assert "leave out --output" in said[3]
    assert "is an atlas: give a folder of its own" in said[1]
    assert "no descriptors by vlad" in said[2]


def test_search_prints_what_is_most_alike_and_what_cannot_be_read(
    queries: Path, built_atlas: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["search", "--atlas", str(built_atlas), "--images", str(queries), "--k", "3"]
    assert main([*words, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    best = {row["query"]: row["name"] for row in rows if row.get("rank") == 0}
    assert set(best) == {*MAPPED, "black.jpg", "noise.png"}
    assert sum(best[name] == name for name in MAPPED) >= 2  # smoothed over neighbours
    assert {row["query"] for row in rows if "error" in row} == {"cut.jpg", "text.jpg"}
    assert main(words) == 0
    assert f"{MAPPED[0]}:\n  " in capsys.readouterr().out
