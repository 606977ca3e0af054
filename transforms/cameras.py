"""Cameras: which projection fits each camera's photographs, by trial reconstructions.

Part of the verify stage, between the features and the pairs: two-view geometry needs to know a
fisheye lens. A camera is tried on images of a few shards that pairs connect.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_entry, read_input
from vladmap.console import counter as progress
from vladmap.features.base import LocalFeatures
from vladmap.features.registry import load_matcher
from vladmap.features.table import read_features
from vladmap.mapping.camera import Camera
from vladmap.mapping.camera_keys import camera_keys, initial_cameras
from vladmap.mapping.camera_trials import choose_camera
from vladmap.schemas.records import LedgerEntry, Task

STAGE = "cameras"

IMAGE_COLUMNS = ["image_id", "make", "model", "width", "height", "focal_px"]


@dataclass(eq=False)
class ChooseCameras(beam.PTransform):
    """Tasks of cameras -> ledger entries of `work/cameras/`.

    Photographs are matched by the nearest neighbours of their `features`, whichever matcher the
    pairs of the map get: few matches tell one lens from another, and a network takes long.

    A task reads `key` (the camera's key, not a file), and `images/<shard>`, `pairs/<shard>` and
    `features/<shard>` of some shards.
    """

    root: str
    features: str

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.ParDo(_Choose(self.root, self.features))


class _Choose(beam.DoFn):
    def __init__(self, root: str, features: str) -> None:
        self._root, self._features = root, features

    def process(self, task: Task) -> Iterator[LedgerEntry]:
        key = task.read("key")
        images = pa.concat_tables(self._tables(task, "images", IMAGE_COLUMNS))
        images = images.filter(pa.array([found == key for found in camera_keys(images)]))
        own = images["image_id"].combine_chunks()
        features: dict[str, LocalFeatures] = {}
        for table in self._tables(task, "features", ["image_id", "keypoints", "descriptors"]):
            # A copy of the rows that count, lest they keep the whole table in memory.
            features |= read_features(table.filter(pc.is_in(table["image_id"], value_set=own)))
        ids = pa.array(sorted(features), pa.string())
        pairs = pa.concat_tables(
            self._tables(task, "pairs", ["image_id_a", "image_id_b", "similarity"])
        )
        pairs = pairs.filter(
            pc.and_(
                pc.is_in(pairs["image_id_a"], value_set=ids),
                pc.is_in(pairs["image_id_b"], value_set=ids),
            )
        )
        choice = choose_camera(
            initial_cameras(images)[key],
            pairs["image_id_a"].to_pylist(),
            pairs["image_id_b"].to_pylist(),
            pairs["similarity"].to_numpy().astype(np.float64),
            features.__getitem__,
            load_matcher(self._features),
        )
        said = {"key": key, **choice.report()}
        data = (json.dumps(said, indent=1, sort_keys=True) + "\n").encode()
        file = storage.commit_file(self._root, task.output, data, 1)
        progress.advance()
        counts = {"images": choice.images}
        yield commit_entry(self._root, STAGE, task, [file], counts=counts)

    def _tables(self, task: Task, role: str, columns: list[str]) -> Iterator[pa.Table]:
        for name, path in task.reads:
            if name.startswith(f"{role}/"):
                yield storage.read_table(storage.join(self._root, path), columns)


def read_cameras(root: str, task: Task) -> dict[str, Camera]:
    """Chosen cameras by key, of the files that a task reads as `cameras/<name>`."""
    paths = [path for role, path in task.reads if role.startswith("cameras/")]
    found = (json.loads(read_input(root, task, path)) for path in paths)
    return {said["key"]: Camera.from_json(said["camera"]) for said in found}
