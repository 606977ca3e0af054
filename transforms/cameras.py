"""Cameras: the choice of each camera's projection model by trial reconstructions.

A step of the verify stage, after the features and before the pairs: two-view geometry must know
whether a lens is a fisheye. A camera is tried on images of a few shards that pairs connect.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
import pyarrow as pa

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_entry
from vladmap.atlas.task_inputs import read_tables
from vladmap.console import counter as progress
from vladmap.features.registry import load_matcher
from vladmap.mapping.camera_keys import IMAGE_COLUMNS, camera_keys, camera_name
from vladmap.mapping.camera_trials import FEATURE_COLUMNS, PAIR_COLUMNS, choose_camera_of
from vladmap.photos.side_by_side import OutOfMemory
from vladmap.schemas.records import LedgerEntry, Task
from vladmap.transforms.counters import StageCounters
from vladmap.transforms.side_by_side import SideBySide

STAGE = "cameras"

# Bytes that the trials of a camera take, on one thread.
_MEMORY = 700 << 20


@dataclass(eq=False)
class ChooseCameras(beam.PTransform):
    """Tasks of cameras -> ledger entries of `work/cameras/`.

    Photographs are matched by the nearest neighbours of their `features`, whichever matcher the
    pairs of the map use: few matches are enough to distinguish lenses, and a network is slow. The
    cameras of a bundle, and the trials of each, run in parallel, `workers` at once.

    A task is named after its camera (camera_name), and reads `images`, `pairs` and `features` of
    some shards.
    """

    root: str
    features: str
    workers: int = 1

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.ParDo(_Choose(self.root, self.features, self.workers))


class _Choose(SideBySide):
    def __init__(self, root: str, features: str, workers: int) -> None:
        super().__init__(workers)
        self._root, self._features = root, features

    def memory(self, task: Task) -> int:
        return _MEMORY

    def done(self, task: Task, alone: bool, threads: int) -> LedgerEntry:
        images = pa.concat_tables(self._tables(task, layout.IMAGES, IMAGE_COLUMNS))
        key = next(key for key in camera_keys(images) if camera_name(key) == task.shard)
        choice = choose_camera_of(
            key,
            images,
            pa.concat_tables(self._tables(task, layout.PAIRS, PAIR_COLUMNS)),
            self._tables(task, layout.FEATURES, FEATURE_COLUMNS),
            load_matcher(self._features),
            1 if alone else threads,  # each thread takes as much memory again
        )
        if choice.out_of_memory and not alone:
            raise OutOfMemory(choice.failure)
        record = {"key": key, **choice.report()}
        data = (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()
        file = storage.commit_file(self._root, task.output, data, 1)
        progress.advance()
        counts = {"images": choice.images}
        if choice.out_of_memory:
            counts["out_of_memory"] = 1  # the next build tries again
        StageCounters(STAGE).add("images", choice.images)
        return commit_entry(self._root, STAGE, task, [file], counts=counts)

    def _tables(self, task: Task, role: str, columns: list[str]) -> Iterator[pa.Table]:
        return read_tables(self._root, task, role, columns)
