"""The transforms of maps, each alone through a pipeline, on an atlas of two shards and two tiles.

Nothing is rendered: see tests/mapping/scene.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.testing import test_pipeline

from tests.mapping.kills import map_or_die
from tests.mapping.scene import CAMERA, features_of, id_of, images_of, views_of
from tests.mapping.test_tile_merge import ORIGIN, model_of, name_of, street
from vladmap.atlas import storage
from vladmap.atlas.ledger import LedgerReader
from vladmap.features.rootsift import KIND
from vladmap.features.table import feature_table
from vladmap.geodesy.wgs84 import geodetic_to_enu
from vladmap.mapping.camera import Camera
from vladmap.mapping.camera_keys import camera_keys, camera_name
from vladmap.mapping.judging import judge_tables
from vladmap.mapping.tile_inputs import members_table
from vladmap.mapping.tiles import Tile
from vladmap.mapping.two_view import two_view_table
from vladmap.schemas import tables
from vladmap.schemas.records import NO_CELL, LedgerEntry, Task
from vladmap.transforms.cameras import ChooseCameras
from vladmap.transforms.fit_pairs import FitPairs
from vladmap.transforms.merge import MergeTiles
from vladmap.transforms.reconstruct import ReconstructTiles

SHARDS = {"first": range(6), "second": range(6, 11)}
TILES = {"left": range(7), "right": range(4, 11)}
# A photograph of the second shard that has no features.
REJECTED = 10


def ledger(
    root: Path, stage: str, transform: beam.PTransform, tasks: Sequence[Task]
) -> Mapping[str, LedgerEntry]:
    """What the ledger has of a stage when a transform has done its tasks."""
    with test_pipeline.TestPipeline(runner="DirectRunner") as pipeline:
        _ = pipeline | beam.Create(list(tasks)) | transform
    return LedgerReader(str(root)).entries(stage)


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    """Two shards of images, features, candidate and verified pairs, and one camera's file."""
    root = str(tmp_path)
    for shard, numbers in SHARDS.items():
        there = [number for number in numbers if number != REJECTED]
        features = features_of(there)
        rows = [(image, 640, 480, features[image]) for image in sorted(features)]
        views = [view for view in views_of(range(11), 3) if view.image_id_b in features]
        pairs = [
            {"image_id_a": view.image_id_a, "image_id_b": view.image_id_b, "sources": [],
             "similarity": 1.0 / (1 + int(view.image_id_b[2:]) - int(view.image_id_a[2:]))}
            for view in views
        ]  # fmt: skip
        for folder, table in (
            ("images", images_of(numbers)),
            ("features", feature_table(rows, KIND)),
            ("pairs", pa.Table.from_pylist(pairs, schema=tables.PAIRS)),
            ("two_views", two_view_table(views)),
        ):
            storage.commit_table(root, f"{folder}/{shard}.parquet", table)
    record = {"key": camera_keys(images_of([0]))[0], "camera": CAMERA.to_json()}
    storage.commit_file(root, "work/cameras/a.json", json.dumps(record).encode(), 1)
    return tmp_path


def tile_task(root: Path, name: str, numbers: Sequence[int]) -> Task:
    members = Tile(name, [id_of(number) for number in numbers], np.ones(len(numbers), bool))
    there = [number for number in numbers if number != REJECTED]
    judged = judge_tables(images_of(there), two_view_table(views_of(there, 3)), 5.0)
    at = f"work/tiles/{name}.parquet", f"work/tiles/{name}.judged.parquet"
    storage.commit_table(
        str(root),
        at[0],
        members_table(members, np.full(len(numbers), -1), np.zeros(len(numbers), int)),
    )
    storage.commit_table(str(root), at[1], judged)
    shards = [
        (role, f"{role}/{shard}.parquet")
        for role in ("images", "features", "two_views")
        for shard in SHARDS
    ]
    reads = (("members", at[0]), ("judged", at[1]), ("cameras", "work/cameras/a.json"), *shards)
    return Task(name, NO_CELL, f"tiles/{name}/tile.json", "made", reads=reads)


def test_reconstruct_maps_each_tile_by_itself_from_several_shards(atlas: Path) -> None:
    tasks = [tile_task(atlas, name, numbers) for name, numbers in TILES.items()]
    entries = ledger(atlas, "reconstruct", ReconstructTiles(str(atlas), 120.0, 5.0), tasks)
    assert sorted(entries) == ["left", "right"]
    for name, numbers in TILES.items():
        report = json.loads((atlas / "tiles" / name / "tile.json").read_text())
        assert (report["tile"], report["failure"]) == (name, None)
        # Those that have no features are counted, and take no part.
        assert report["images"] == len(numbers)
        (model,) = report["models"]
        assert model["images"] == len([number for number in numbers if number != REJECTED])
        paths = {file.path for file in entries[name].files}
        assert f"tiles/{name}/sparse/0/images.bin" in paths
        assert entries[name].counts["models"] == 1
        assert entries[name].counts["limit_s"] == 120


def fit_task() -> Task:
    shards = [
        (role, f"{role}/{shard}.parquet")
        for role in ("images", "features", "two_views")
        for shard in SHARDS
    ]
    reads = (("cameras", "work/cameras/a.json"), *shards)
    return Task("graph", NO_CELL, "work/pair_fits.parquet", "made", reads=reads)


def test_all_pairs_of_several_shards_are_fitted_to_one_pose_graph(atlas: Path) -> None:
    entries = ledger(atlas, "fit", FitPairs(str(atlas), 5.0, least=3), [fit_task()])
    fits = storage.read_table(str(atlas / "work/pair_fits.parquet")).to_pylist()
    assert entries["graph"].counts["pairs"] == len(fits)
    ends = {(row["image_id_a"], row["image_id_b"]) for row in fits}
    # Pairs within each shard, and across both; none of the photograph without features.
    assert {(id_of(2), id_of(3)), (id_of(7), id_of(8)), (id_of(5), id_of(6))} <= ends
    assert id_of(REJECTED) not in {image for pair in ends for image in pair}
    assert all(row["fit_share"] > 0.9 for row in fits)


def test_a_set_of_few_photographs_is_fitted_to_no_graph(atlas: Path) -> None:
    ledger(atlas, "fit", FitPairs(str(atlas), 5.0, least=12), [fit_task()])
    assert storage.read_table(str(atlas / "work/pair_fits.parquet")).num_rows == 0


def test_reconstruct_commits_a_tile_that_fails_and_the_others(atlas: Path) -> None:
    tasks = [tile_task(atlas, "good", range(5)), tile_task(atlas, "poor", [0, 6])]
    entries = ledger(atlas, "reconstruct", ReconstructTiles(str(atlas), 120.0, 5.0), tasks)
    assert {name: entry.counts["failed"] for name, entry in entries.items()} == {
        "good": 0, "poor": 1,
    }  # fmt: skip
    report = json.loads((atlas / "tiles/poor/tile.json").read_text())
    assert report["failure"] == "only 0 images have trusted pairs"
    assert set(report["unregistered"]) == {id_of(0), id_of(6)}
    assert [file.path for file in entries["poor"].files] == ["tiles/poor/tile.json"]


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.medium
def test_tiles_beside_each_other_have_the_bytes_of_one_after_the_other(
    atlas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the process of one is killed, as where memory runs out: it is mapped again."""
    tasks = [tile_task(atlas, name, numbers) for name, numbers in TILES.items()]
    plain = ReconstructTiles(str(atlas), 120.0, 5.0)
    ledger(atlas, "reconstruct", plain, tasks)
    expected = files_of(atlas / "tiles")
    assert any(name.startswith("left/sparse/0/") for name in expected)
    shutil.rmtree(atlas / "tiles")
    monkeypatch.setattr("vladmap.mapping.reconstruct.map_tile", map_or_die)
    monkeypatch.setenv("KILLS", str(tmp_path / "kills"))
    (tmp_path / "kills").write_text("1")
    entries = ledger(atlas, "reconstruct", replace(plain, workers=2), tasks)
    assert files_of(atlas / "tiles") == expected
    assert {entry.counts["out_of_memory"] for entry in entries.values()} == {0}
    assert (tmp_path / "kills").read_text() == "0"


@pytest.mark.medium
def test_a_tile_whose_process_is_killed_each_time_fails_alone_and_says_so(
    atlas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vladmap.mapping.reconstruct.map_tile", map_or_die)
    monkeypatch.setenv("KILLS", str(tmp_path / "kills"))
    (tmp_path / "kills").write_text("9")
    tasks = [tile_task(atlas, name, numbers) for name, numbers in TILES.items()]
    transform = ReconstructTiles(str(atlas), 120.0, 5.0, workers=2)
    entries = ledger(atlas, "reconstruct", transform, tasks)
    assert {name: entry.counts["failed"] for name, entry in entries.items()} == {
        "left": 1, "right": 0,
    }  # fmt: skip
    assert entries["left"].counts["out_of_memory"] == 1
    # Beside the other one, and once more alone.
    assert (tmp_path / "kills").read_text() == "7"
    report = json.loads((atlas / "tiles/left/tile.json").read_text())
    assert report["failure"].startswith(
        "mapping failed: killed by SIGKILL, as happens where the machine's memory runs out"
    )


def test_merge_joins_two_tiles_and_accounts_for_every_photograph(atlas: Path) -> None:
    reads = [("images", f"images/{shard}.parquet") for shard in SHARDS]
    reads += [("pairs", f"pairs/{shard}.parquet") for shard in SHARDS]
    reads += [("two_views", f"two_views/{shard}.parquet") for shard in SHARDS]
    for name, numbers in {"left": range(7), "right": range(3, 10)}.items():
        folder = atlas / "tiles" / name
        (folder / "sparse" / "0").mkdir(parents=True)
        model_of(numbers).write_binary(folder / "sparse" / "0")
        report = {"models": [{"model": 0, "origin": list(ORIGIN), "georegistered": True}]}
        (folder / "tile.json").write_text(json.dumps(report))
        files = sorted(path for path in folder.rglob("*.*") if path.is_file())
        reads += [("tiles", path.relative_to(atlas).as_posix()) for path in files]
    task = Task("model", NO_CELL, "model/merge.json", "made", reads=tuple(reads))
    merge = MergeTiles(str(atlas), "/photos", 5.0, 10**8, 2)
    (entry,) = ledger(atlas, "merge", merge, [task]).values()
    report = json.loads((atlas / "model/merge.json").read_text())
    assert [decision["merged"] for decision in report["decisions"]] == [True]
    assert [model["images"] for model in report["models"]] == [10]
    # There are no files: the map stands without colours, and each photograph is named.
    assert sorted(report["colours"]["unreadable"]) == [name_of(number) for number in range(10)]
    poses = pq.read_table(atlas / "poses.parquet")
    assert poses["image_id"].to_pylist() == [id_of(number) for number in range(10)]
    places = np.stack([poses[name] for name in ("latitude", "longitude", "altitude")], axis=1)
    there = geodetic_to_enu(places, ORIGIN)
    assert np.linalg.norm(there - street()[0][:10], axis=1).max() < 1.0
    (row,) = pq.read_table(atlas / "unregistered.parquet").to_pylist()
    assert (row["image_id"], row["reason"]) == (id_of(REJECTED), "no_pair")
    assert entry.counts == {
        "models": 1, "registered": 10, "unregistered": 1, "unreadable": 10, "doubtful": 0,
    }  # fmt: skip
    # An exact map: nothing is off, and both tiles say so of their photographs.
    assert max(poses["predicted_error_m"].to_pylist()) < 0.01
    assert {name: found["doubtful"] for name, found in report["tiles"].items()} == {
        "left/0": {}, "right/0": {},
    }  # fmt: skip


@pytest.mark.slow
def test_choose_cameras_writes_the_choice_of_each_camera_under_its_key(atlas: Path) -> None:
    """On photographs of two shards; EXIF's focal length is the true one, and stands."""
    key = camera_keys(images_of([0]))[0]
    shards = [
        (role, f"{role}/{shard}.parquet")
        for role in ("images", "pairs", "features")
        for shard in SHARDS
    ]
    task = Task(camera_name(key), NO_CELL, "work/cameras/b.json", "made", reads=tuple(shards))
    (entry,) = ledger(atlas, "cameras", ChooseCameras(str(atlas), "sift"), [task]).values()
    record = json.loads((atlas / "work/cameras/b.json").read_text())
    assert record["key"] == key
    assert entry.counts == {"images": record["images"]}
    assert record["images"] == 10
    assert Camera.from_json(record["camera"]).focal_px == pytest.approx(500.0, rel=0.02)
    assert record["failure"] is None
