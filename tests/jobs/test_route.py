"""`vladmap route` on an atlas made by hand: two streets that cross, south of the equator."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.mapping.test_routes import CROSS
from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_entry, commit_shard
from vladmap.atlas.routing import route
from vladmap.atlas.store import AtlasStore
from vladmap.geodesy.wgs84 import enu_to_geodetic
from vladmap.jobs.main import main
from vladmap.jobs.route import joined
from vladmap.schemas import tables
from vladmap.schemas.records import NO_CELL, Task

SHARD = "g0000-000-none-000"
ORIGIN = (-33.9, 151.2, 20.0)
START = datetime(2024, 5, 1, tzinfo=UTC)
LOST, TORN = "e20", "n00"


def filled(rows: list[dict], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(
        [{name: row.get(name) for name in schema.names} for row in rows], schema=schema
    )


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    root = str(tmp_path / "atlas")
    AtlasStore.open(root, create=True)
    places = enu_to_geodetic(np.array([[x, y, 0.0] for _, x, y, _, _ in CROSS]), ORIGIN).tolist()
    images, poses = [], []
    for (name, _, _, drive, index), (lat, lon, alt) in zip(CROSS, places, strict=True):
        known = {"image_id": name, "name": f"{drive}/{name}.jpg", "uri": f"/c/{drive}/{name}.jpg"}
        images.append({
            **known, "content_hash": name, "width": 4, "height": 3, "projection": "perspective",
            "captured_at": START + timedelta(seconds=index), "sequence_id": drive,
            "sequence_index": index, "sharpness": 1.0,
        })  # fmt: skip
        poses.append({
            **known, "model": 0, "latitude": lat, "longitude": lon, "altitude": alt, "qw": 0.5,
            "qx": 0.5, "qy": 0.5, "qz": 0.5, "points": 9, "reprojection_error_px": 0.5,
            "predicted_error_m": 0.05, "doubt": "torn" if name == TORN else None,
        })  # fmt: skip
    counts = {"images": len(images), "duplicates": 0, "rejected": 0}
    task = Task(SHARD, NO_CELL, layout.images(SHARD), "f")
    commit_shard(root, "ingest", task, filled(images, tables.IMAGES), counts=counts)
    view = {
        "image_id_a": "e10", "image_id_b": "n10", "configuration": "CALIBRATED",
        "matches": [[0, 1]], "inliers": [[0, 1]], "verdict": "kept",
    }  # fmt: skip
    task = Task(SHARD, NO_CELL, layout.two_views(SHARD), "f")
    commit_shard(root, layout.VERIFY_LEDGER, task, filled([view], tables.TWO_VIEWS))
    posed = filled([pose for pose in poses if pose["image_id"] != LOST], tables.POSES)
    file = storage.commit_table(root, layout.POSES, posed)
    commit_entry(root, layout.MERGE_LEDGER, Task("model", NO_CELL, layout.POSES, "f"), [file])
    return tmp_path / "atlas"


def found(atlas: Path, start: str, end: str, *more: str) -> int:
    return main(["route", "--atlas", str(atlas), "--from", start, "--to", end, *more])


def test_people_get_a_line_for_each_instruction_and_the_files(
    atlas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found(atlas, "e/e00.jpg", "n20", "--output", str(tmp_path / "out")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "103 m along 22 photographs, predicted error 0.05 m on average"
    assert [line.split("m  ")[1].split("  ")[0] for line in lines[1:4]] == [
        "start", "turn left", "arrive",
    ]  # fmt: skip
    assert lines[4] == "not used: 0 photographs without a place, 1 that must not be used"
    assert [Path(line).name for line in lines[5:]] == ["route.geojson", "route.gpx"]
    assert all(Path(line).is_file() for line in lines[5:])


def test_programs_get_json_and_negative_degrees_are_no_option(
    atlas: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, end = (
        ",".join(f"{value:.7f}" for value in place[:2])
        for place in enu_to_geodetic([[-50.0, 3.0, 0.0], [2.0, 55.0, 0.0]], ORIGIN).tolist()
    )
    assert start.startswith("-33.")
    assert found(atlas, start, end, "--json", "--by", "quality") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["by"], facts["photographs"], facts["files"]) == ("quality", 22, [])
    assert facts["steps"][0]["image_id"] == "e00"
    assert facts["start_off_m"] == pytest.approx(3.0, abs=0.02)


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("e/e0.jpg", "is no photograph of"),
        ("e/e0.jpg", "did you mean e/e"),
        ("-91,0", "no LAT,LON in degrees"),
        ("n/n00.jpg", "must not be used (torn)"),
        ("e20", "no pose (unregistered.parquet says why)"),
        ("-33.8,151.2", "11.0 km from the nearest photograph"),
    ],
)
def test_a_place_that_is_none_says_why(
    atlas: Path, start: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found(atlas, start, "e05") == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert said in error


def test_an_atlas_without_a_map_names_the_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    AtlasStore.open(str(tmp_path / "empty"), create=True)
    assert found(tmp_path / "empty", "1,2", "3,4") == 2
    assert "merge" in capsys.readouterr().err


def test_a_folder_that_is_no_atlas_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found(tmp_path / "nothing", "1,2", "3,4") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_only_places_are_joined_to_their_flags() -> None:
    assert joined(["--from", "-1,2", "--to=3,4", "--atlas", "-x", "--to"]) == [
        "--from=-1,2", "--to=3,4", "--atlas", "-x", "--to",
    ]  # fmt: skip


def test_the_function_takes_the_path_of_an_atlas(atlas: Path) -> None:
    assert route(atlas, "e00", "e05").length_m == pytest.approx(25.0, abs=1e-3)
