"""The second look at pairs between drives: which are taken, and what readers make of their rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.mapping.test_two_view import CAMERA, scene
from vladmap.atlas import layout, storage
from vladmap.atlas.task_inputs import read_keypoints
from vladmap.features.base import LocalFeatures
from vladmap.features.nearest import RatioTest
from vladmap.features.registry import feature_kind
from vladmap.features.table import feature_table
from vladmap.mapping.second_views import SecondKind
from vladmap.mapping.two_view import TwoView
from vladmap.schemas.records import Task
from vladmap.schemas.tables import PAIRS
from vladmap.transforms.second_look import SecondLook

SIFT = feature_kind("sift")
SCENE = scene(np.random.default_rng(2))
SECOND = {"a0": SCENE[0], "a1": SCENE[0], "b0": SCENE[1]}
DRIVES = {"a0": "summer", "a1": "summer", "b0": "winter", "b1": "winter"}
SHARD = "g0000-0000-none-0"
NOTHING = np.zeros((0, 2), np.uint32)


def first(count: int) -> LocalFeatures:
    rng = np.random.default_rng(count)
    places = rng.uniform(0, 400, (count, 4)).astype(np.float32)
    return LocalFeatures(places, rng.integers(0, 60, (count, 128)).astype(np.uint8))


FIRST = {"a0": first(5), "a1": first(6), "b0": first(7), "b1": first(8)}


def write(root: Path) -> Task:
    """An atlas of one shard with `SECOND` features; b1 has none of these."""
    images = pa.table({"image_id": list(DRIVES), "sequence_id": list(DRIVES.values())})
    rows = [
        {
            "image_id_a": a, "image_id_b": b, "sources": ["near"], "similarity": 0.9,
            "gps_distance_m": 2.0,
        }
        for a, b in (("a0", "a1"), ("a0", "b0"), ("a1", "b0"), ("a1", "b1"))
    ]  # fmt: skip
    tables = {
        (layout.IMAGES, layout.images(SHARD)): images,
        (layout.PAIRS, "pairs/s.parquet"): pa.Table.from_pylist(rows, schema=PAIRS),
        (layout.FEATURES, layout.features("sift", SHARD)): features(FIRST),
        (layout.SECOND_FEATURES, layout.features("xfeat", SHARD)): features(SECOND),
    }
    for (_, path), table in tables.items():
        storage.commit_table(str(root), path, table)
    return Task("s", "none", "two_views/s.parquet", "f", reads=tuple(tables))


def features(known: dict[str, LocalFeatures]) -> pa.Table:
    return feature_table([(name, 640, 480, found) for name, found in known.items()], SIFT)


def test_pairs_of_two_drives_with_too_little_are_tried_again_and_counted(tmp_path: Path) -> None:
    task = write(tmp_path)
    look = SecondLook(str(tmp_path), task, SecondKind(SIFT, RatioTest()))
    failed = [
        TwoView(a, b, "DEGENERATE", NOTHING, NOTHING)
        for a, b in (("a0", "a1"), ("a0", "b0"), ("a1", "b0"), ("a1", "b1"))
    ]
    enough = np.column_stack([np.arange(40), np.arange(40)]).astype(np.uint32)
    failed[2] = replace(failed[2], configuration="CALIBRATED", matches=enough, inliers=enough)
    with ThreadPoolExecutor(2) as pool:
        views = look.at(failed, FIRST, dict.fromkeys(DRIVES, CAMERA), pool)
    assert [view is before for view, before in zip(views, failed, strict=True)] == [
        True,  # of one drive
        False,
        True,  # holds by the first kind
        True,  # b1 has no features of the second kind
    ]
    assert (look.again, look.gained) == (1, 1)
    own = views[1].inliers - np.array([5, 7])
    assert len(own) > 100
    assert np.array_equal(own[:, 0], own[:, 1])


def test_a_row_behind_the_keypoints_of_the_first_kind_is_one_of_the_second(tmp_path: Path) -> None:
    task = write(tmp_path)
    keypoints = read_keypoints(str(tmp_path), task)
    assert list(keypoints) == sorted(FIRST)
    for name, found in keypoints.items():
        count, second = len(FIRST[name]), SECOND.get(name)
        assert np.array_equal(found.keypoints[:count], FIRST[name].keypoints)
        behind = found.keypoints[count:]
        assert np.array_equal(behind, second.keypoints if second else np.zeros((0, 4)))
    some = read_keypoints(str(tmp_path), task, {"b0"})
    assert list(some) == ["b0"]
    alone = Task("s", "none", "x", "f", reads=(task.reads[2],))
    assert [len(found) for found in read_keypoints(str(tmp_path), alone).values()] == [5, 6, 7, 8]
