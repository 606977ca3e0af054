"""Reading the inputs of a task: tables in a role, shard by shard, and cameras by their key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import read_input
from vladmap.features.base import LocalFeatures
from vladmap.features.table import read_features
from vladmap.mapping.camera import Camera
from vladmap.schemas.records import Task


def read_tables(
    root: str, task: Task, role: str, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Yield the tables that a task reads in a role, in its order, with some columns."""
    for path in task.paths(role):
        yield storage.read_table(
            storage.join(root, path), None if columns is None else list(columns)
        )


def read_keypoints(
    root: str, task: Task, wanted: set[str] | None = None
) -> dict[str, LocalFeatures]:
    """Return the keypoints by image_id, of all images or of some, that rows of two_views count.

    They are those that a task reads as FEATURES, and behind them those of SECOND_FEATURES, where it
    reads any (see mapping.second_views). Descriptors are not read.
    """
    columns = ["image_id", "keypoints"]
    found: dict[str, LocalFeatures] = {}
    for table in read_tables(root, task, layout.FEATURES, columns):
        found |= read_features(table, wanted)
    for table in read_tables(root, task, layout.SECOND_FEATURES, columns):
        for image, more in read_features(table, wanted).items():
            if image in found:
                both = np.concatenate([found[image].keypoints, more.keypoints])
                found[image] = replace(found[image], keypoints=both)
    return found


def read_cameras(root: str, task: Task) -> dict[str, Camera]:
    """Return the chosen cameras by key, of the files that a task reads as `cameras`.

    Raises:
        ValueError: a file holds no camera.
    """
    records = (json.loads(read_input(root, task, path)) for path in task.paths("cameras"))
    return {record["key"]: Camera.from_json(record["camera"]) for record in records}
