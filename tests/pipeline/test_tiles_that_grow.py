"""A city of several tiles that grows: only what the new photographs touch is mapped, and no tile
from nothing.

Nothing is rendered: see tests/mapping/scene.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.mapping.scene import CAMERA, features_of, id_of, images_of, views_of
from tests.mapping.test_tile_merge import ORIGIN, street
from vladmap.atlas import storage
from vladmap.atlas.commit import commit_entry, commit_shard
from vladmap.atlas.image_parts import part_digests
from vladmap.atlas.store import AtlasStore
from vladmap.features.colmap import pycolmap
from vladmap.features.rootsift import KIND
from vladmap.features.table import feature_table
from vladmap.geodesy.wgs84 import enu_to_geodetic, geodetic_to_enu
from vladmap.mapping.camera_keys import camera_keys, camera_name
from vladmap.mapping.georegister import centres_and_rotations
from vladmap.mapping.two_view import two_view_table
from vladmap.pipeline.measured import rates_of_atlas
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import STAGES
from vladmap.pipeline.stages.reconstruct import RECONSTRUCT
from vladmap.schemas import tables
from vladmap.schemas.records import NO_CELL, Task

pytestmark = pytest.mark.slow

BOUND = 10
NEW = (21, 22, 23)
OLD = [number for number in range(24) if number not in NEW]


def add_shard(root: Path, shard: str, numbers: Sequence[int], known: Sequence[int]) -> None:
    """Enter photographs with their features, and their pairs with each other and those before."""
    images = images_of(numbers)
    whole = pa.Table.from_pylist(
        [{**dict.fromkeys(tables.IMAGES.names), **row} for row in images.to_pylist()], tables.IMAGES
    )
    features = features_of(numbers)
    rows = [(each, CAMERA.width, CAMERA.height, features[each]) for each in sorted(features)]
    new = {id_of(number) for number in numbers}
    views = [
        view
        for view in views_of([*known, *numbers], 3)
        if view.image_id_a in new or view.image_id_b in new
    ]
    counts = {"images": len(numbers), "duplicates": 0, "without_position": 0}
    for stage, path, table, parts in (
        ("ingest", f"images/cell=none/{shard}.parquet", whole, part_digests(whole)),
        ("features-sift", f"features/sift/{shard}.parquet", feature_table(rows, KIND), None),
        ("verify", f"two_views/{shard}.parquet", two_view_table(views), None),
    ):
        task = Task(shard, NO_CELL, path, "made")
        commit_shard(str(root), stage, task, table, counts=counts, parts=parts)


def make(root: Path) -> None:
    AtlasStore.open(str(root), create=True).save()
    add_shard(root, "g0000-00000-none-00000", OLD, [])
    key = camera_keys(images_of([0]))[0]
    record = json.dumps({"key": key, "camera": CAMERA.to_json()}).encode()
    task = Task(camera_name(key), NO_CELL, f"work/cameras/{camera_name(key)}.json", "made")
    commit_entry(
        str(root), "cameras", task, [storage.commit_file(str(root), task.output, record, 1)]
    )


def run_of(root: Path, bound: int = BOUND) -> Run:
    options = BuildOptions(atlas=str(root), tile_images=bound, threads=1)
    return Run(AtlasStore.open(str(root), create=False), options)


def map_all(root: Path, bound: int = BOUND) -> dict[str, bytes]:
    """Run the stage and return the files of all tiles."""
    STAGES["reconstruct"].work(run_of(root, bound))
    folder = root / "tiles"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def killed_after_its_plan(root: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of an atlas whose run planned its tiles, wrote what they read, and ended there."""
    shutil.copytree(root, copy)
    run = run_of(copy)

    pipeline = run.pipeline

    def killed(tasks: Sequence[Task], label: str, transform: Any, **how: Any) -> None:
        if label == RECONSTRUCT.title:
            raise KeyboardInterrupt
        pipeline(tasks, label, transform, **how)

    monkeypatch.setattr(run, "pipeline", killed)
    with pytest.raises(KeyboardInterrupt):
        STAGES["reconstruct"].work(run)
    return copy


def test_new_photographs_are_registered_to_the_tile_they_touch_and_the_others_keep_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    before = map_all(tmp_path)
    assert rates_of_atlas(run_of(tmp_path)).of("reconstruct")
    names = {path.partition("/")[0] for path in before}
    assert len(names) >= 3
    assert map_all(tmp_path) == before
    add_shard(tmp_path, "g0001-00000-none-00000", NEW, OLD)
    after = map_all(killed_after_its_plan(tmp_path, tmp_path.parent / "killed", monkeypatch))
    assert map_all(tmp_path) == after
    assert {path.partition("/")[0] for path in after} == names
    touched = {path.partition("/")[0] for path in after if after[path] != before.get(path)}
    assert len(touched) == 1
    [name] = touched
    report = json.loads(after[f"{name}/tile.json"])
    assert (report["grown"]["new"], report["grown"]["registered"]) == (len(NEW), len(NEW))
    assert report["unregistered"] == {}
    model = pycolmap.Reconstruction(str(tmp_path / "tiles" / name / "sparse" / "0"))
    held, centres, _ = centres_and_rotations(model)
    origin = report["models"][0]["origin"]
    there = geodetic_to_enu(enu_to_geodetic(centres, origin), ORIGIN)
    truth = street()[0][[int(each[:3]) for each in held]]
    # GPS of a dozen places with half a metre of noise leaves some decimetres.
    assert np.linalg.norm(there - truth, axis=1).max() < 1.0
    # What a continuation takes says nothing of mapping a tile.
    assert not rates_of_atlas(run_of(tmp_path)).of("reconstruct")
    # Nothing is left to do, and another bound has all tiles planned and mapped anew.
    assert map_all(tmp_path) == after
    [whole] = {path.partition("/")[0] for path in map_all(tmp_path, 30)}
    assert whole == "all"
