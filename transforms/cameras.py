"""Cameras: which projection fits each camera's photographs, by trial reconstructions.

Part of the verify stage, between the features and the pairs: two-view geometry needs to know a
fisheye lens. A camera is tried on the one shard that has most of its images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mapping.cameras import camera_keys, choose_cameras
from mapping.feature_table import read_features
from schemas.records import LedgerEntry, Task
from transforms import progress, storage
from transforms.commit import commit_entry

STAGE = "cameras"

IMAGE_COLUMNS = ["image_id", "make", "model", "width", "height", "focal_px"]


@dataclass(eq=False)
class ChooseCameras(beam.PTransform):
    """Tasks of cameras -> ledger entries of `work/cameras/`.

    A task reads `key` (the camera's key, not a file) and `images`, `pairs` and `features` of one
    shard.
    """

    root: str

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.ParDo(_Choose(self.root))


class _Choose(beam.DoFn):
    def __init__(self, root: str) -> None:
        self._root = root

    def process(self, task: Task) -> Iterator[LedgerEntry]:
        key = task.read("key")
        images = self._table(task, "images", IMAGE_COLUMNS)
        images = images.filter(
            pa.array([found == key for found in camera_keys(images)], pa.bool_())
        )
        features = read_features(
            self._table(task, "features", ["image_id", "keypoints", "descriptors"]),
            set(images["image_id"].to_pylist()),
        )
        pairs = self._table(task, "pairs", ["image_id_a", "image_id_b", "similarity"])
        ids = pa.array(sorted(features), pa.string())
        inside = pc.and_(pc.is_in(pairs["image_id_a"], ids), pc.is_in(pairs["image_id_b"], ids))
        pairs = pairs.filter(inside)
        choice = choose_cameras(
            images,
            pairs["image_id_a"].to_pylist(),
            pairs["image_id_b"].to_pylist(),
            pairs["similarity"].to_numpy().astype(np.float64),
            features.__getitem__,
        )[key]
        said = {"key": key, **choice.report()}
        data = (json.dumps(said, indent=1, sort_keys=True) + "\n").encode()
        file = storage.commit_file(self._root, task.output, data, 1)
        progress.advance()
        yield commit_entry(self._root, STAGE, task, [file])

    def _table(self, task: Task, role: str, columns: list[str]) -> pa.Table:
        return storage.read_table(storage.join(self._root, task.read(role)), columns)


def read_cameras(root: str, paths: list[str]) -> dict[str, dict[str, Any]]:
    """Chosen cameras by key."""
    found = (json.loads(storage.read_bytes(storage.join(root, path))) for path in paths)
    return {said["key"]: said["camera"] for said in found}
