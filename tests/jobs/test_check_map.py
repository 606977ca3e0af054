"""`vladmap check-map` on an atlas made by hand: two drives of two images each along one line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_shard
from vladmap.atlas.store import AtlasStore
from vladmap.geodesy.wgs84 import enu_to_geodetic
from vladmap.jobs.main import main
from vladmap.schemas import tables, truth_tables
from vladmap.schemas.records import NO_CELL, Task

SHARD = "g0000-00000-none-00000"
NAMES = ["a", "b", "c", "d"]
PLACES = np.array([[0.0, 0, 0], [10, 1, 0], [20, 0, 1], [100, 0, 0]])
DRIVES = ["one", "one", "two", "two"]
# a and b see d before c, c sees b first: the best match is right for c alone, the second for all.
ANGLES = [0.0, 10.0, 50.0, 30.0]
START = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
LEVEL = np.sqrt(0.5)  # of a camera that looks north: a quarter turn about its own x axis


def geodetic(shift: tuple[float, float, float]) -> list[list[float]]:
    return enu_to_geodetic(PLACES + shift, (48.0, 16.0, 100.0)).tolist()


def turned(rotation: float) -> dict[str, float]:
    return {"qw": rotation, "qx": rotation, "qy": 0.0, "qz": 0.0}


def write_truth(path: Path, names: list[str] = NAMES, rotation: float = LEVEL) -> None:
    rows = [
        {
            "image_id": name, "path": name, "latitude": lat, "longitude": lon, "altitude": alt,
            "east": 0.0, "north": 0.0, "up": 0.0, **turned(rotation), "camera_model": "PINHOLE",
            "width": 4, "height": 3, "fx": 1.0, "fy": 1.0, "cx": 2.0, "cy": 1.5,
        }
        for name, (lat, lon, alt) in zip(names, geodetic((0, 0, 0)), strict=True)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, schema=truth_tables.TRUTH), path)


def write_descriptors(root: Path, angles: list[float]) -> None:
    radians = np.radians(angles)
    rows = [
        {"image_id": name, "descriptor": [float(np.cos(angle)), float(np.sin(angle))]}
        for name, angle in zip(NAMES, radians, strict=True)
    ]
    path = f"descriptors/netvlad-lite/cell=none/{SHARD}.parquet"
    commit_shard(
        str(root),
        "describe-netvlad-lite",
        Task(SHARD, NO_CELL, path, "f"),
        pa.Table.from_pylist(rows, schema=tables.descriptors(2, "netvlad-lite", "print")),
        counts={"images": 4, "rejects": 0},
    )


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    """Images, descriptors, and poses 5 m off the truth; c was taken five seconds after b."""
    root = tmp_path / "atlas"
    AtlasStore.open(str(root), create=True)
    images = [
        {
            "image_id": name, "name": f"{name}.jpg", "uri": f"{name}.jpg",
            "content_hash": name, "width": 4, "height": 3,
            "captured_at": START + timedelta(seconds=5 * row), "sequence_id": DRIVES[row],
            "sequence_index": row % 2, "sharpness": 1.0, "projection": "perspective",
        }
        for row, name in enumerate(NAMES)
    ]  # fmt: skip
    counts = {"images": 4, "duplicates": 0, "without_position": 4, "invalid_positions": 0}
    commit_shard(
        str(root),
        "ingest",
        Task(SHARD, NO_CELL, f"images/cell=none/{SHARD}.parquet", "f"),
        pa.Table.from_pylist(images, schema=tables.IMAGES),
        counts=counts,
    )
    write_descriptors(root, ANGLES)
    poses = [
        {
            "image_id": name, "name": f"{name}.jpg", "uri": f"{name}.jpg",
            "model": 0, "latitude": lat, "longitude": lon,
            "altitude": alt, **turned(LEVEL), "points": 1, "reprojection_error_px": 0.5,
        }
        for name, (lat, lon, alt) in zip(NAMES, geodetic((3, 4, 0)), strict=True)
    ]  # fmt: skip
    table = pa.Table.from_pylist(poses, schema=tables.POSES)
    storage.commit_table(str(root), "poses.parquet", table)
    write_truth(tmp_path / "truth.parquet")
    return root


def check(atlas: Path, truth: Path | None = None) -> int:
    truth = truth or atlas.parent / "truth.parquet"
    return main(["check-map", "--atlas", str(atlas), "--truth", str(truth)])


def page(atlas: Path) -> str:
    return (atlas / "report" / "index.html").read_text(encoding="utf-8")


def stored_truth(atlas: Path) -> dict:
    return json.loads((atlas / "report" / "truth.json").read_text())


def test_recalls_are_printed_with_the_map_and_kept(
    atlas: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(atlas) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[3].startswith("position error, by GPS  median 5.000 m")
    assert output[6].split() == ["retrieval", "netvlad-lite,", "2", "dimensions"]
    assert output[-3].split() == ["recall,", "%", "queries", "@1", "@5", "@10", "@20"]
    assert output[-2].split() == ["all", "4", "25.0", "75.0", "75.0", "75.0"]
    assert output[-1].split()[-5:] == ["3", "33.3", "100.0", "100.0", "100.0"]
    figures = stored_truth(atlas)
    assert figures["map"]["by_gps_m"]["median"] == pytest.approx(5.0, abs=1e-4)
    assert figures["retrieval"]["found"] == {"1": 1, "5": 3, "10": 3, "20": 3}
    assert figures["retrieval"]["recall_over_queries_with_positive"]["1"] == 0.333333
    assert figures["retrieval"]["model_fingerprint"] == "print"


def test_the_page_has_the_section_after_check_map_and_lacks_it_before(atlas: Path) -> None:
    report = ["report", "--atlas", str(atlas)]
    assert main(report) == 0
    assert "Against the truth" not in page(atlas)
    assert check(atlas) == 0
    shown = page(atlas)
    assert "Against the truth" in shown
    assert "Descriptors of 2 dimensions by netvlad-lite" in shown
    data = (atlas / "report" / "truth.json").read_bytes()
    assert check(atlas) == 0
    assert main(report) == 0
    assert page(atlas) == shown
    assert (atlas / "report" / "truth.json").read_bytes() == data


def test_other_descriptors_make_the_figures_those_of_an_earlier_atlas(atlas: Path) -> None:
    assert check(atlas) == 0
    write_descriptors(atlas, [0.0, 10.0, 20.0, 90.0])
    assert main(["report", "--atlas", str(atlas)]) == 0
    assert "compares it anew" in page(atlas)
    assert "recall@1" not in page(atlas)
    assert check(atlas) == 0
    assert stored_truth(atlas)["retrieval"]["found"]["1"] == 3
    assert "recall@1" in page(atlas)


def test_another_model_in_the_report_does_not_get_the_figures_of_the_first(atlas: Path) -> None:
    assert check(atlas) == 0
    assert main(["report", "--atlas", str(atlas), "--model", "vlad"]) == 0
    assert "compares it anew" in page(atlas)


def test_without_descriptors_the_map_alone_is_compared(
    atlas: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    AtlasStore.open(str(atlas), create=False).forget("describe-netvlad-lite", [SHARD])
    assert check(atlas) == 0
    assert "the atlas has no descriptors of netvlad-lite" in capsys.readouterr().out
    assert stored_truth(atlas)["retrieval"] is None
    assert "Recall is not known" in page(atlas)


def test_a_truth_without_rotations_leaves_the_position_to_decide(
    atlas: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_truth(atlas.parent / "truth.parquet", rotation=np.nan)
    assert check(atlas) == 0
    output = capsys.readouterr().out
    assert "The truth has no heading: there the position alone counts." in output
    assert stored_truth(atlas)["retrieval"]["queries_without_heading"] == 4
    assert stored_truth(atlas)["map"]["rotation_deg"]["median"] is None


def test_images_that_the_truth_does_not_know_are_no_queries(atlas: Path) -> None:
    write_truth(atlas.parent / "truth.parquet", names=["a", "b", "c", "elsewhere"])
    assert check(atlas) == 0
    figures = stored_truth(atlas)["retrieval"]
    assert (figures["queries"], figures["queries_with_positive"], figures["found"]["1"]) == (
        3,
        3,
        3,
    )


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        ("nowhere.parquet", "nowhere.parquet"),
        ("poses.parquet", "lacks the columns"),
        ("other.parquet", "no image in common"),
    ],
)
def test_a_truth_that_cannot_be_used_is_one_line_and_changes_nothing(
    truth: str, expected: str, atlas: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_truth(atlas.parent / "other.parquet", names=["w", "x", "y", "z"])
    folder = atlas if truth == "poses.parquet" else atlas.parent
    assert check(atlas, folder / truth) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line
    assert not (atlas / "report").exists()


def test_an_atlas_that_cannot_be_written_is_compared_all_the_same(
    atlas: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, data: bytes) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("vladmap.atlas.storage.write_atomic", refuse)
    assert check(atlas) == 2
    output = capsys.readouterr()
    assert "recall, %" in output.out
    assert "cannot be written" in output.err


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"map": {}, "measured_on": "", "retrieval": 1}'])
def test_a_damaged_file_is_no_section(text: str, atlas: Path) -> None:
    (atlas / "report").mkdir()
    (atlas / "report" / "truth.json").write_text(text)
    assert main(["report", "--atlas", str(atlas)]) == 0
    assert "Against the truth" not in page(atlas)
