"""Index: train on a sample, add each shard on its own, merge in the shards' order.

From shards of `descriptors/` to the files of `index/<model>/`. The merged index equals the one that
a single process would have built; only the merge holds it whole in memory. A second index holds the
descriptors smoothed over neighbours in space, for queries that were taken at another time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_entry, read_input
from vladmap.console import counter as progress
from vladmap.geodesy.wgs84 import ecef_on_ellipsoid
from vladmap.retrieval import faiss_index
from vladmap.retrieval.descriptors import descriptor_matrix, fair_sample, image_columns
from vladmap.retrieval.names import SIGMA_M
from vladmap.retrieval.smoothing import Placed, smooth_shard
from vladmap.schemas import tables
from vladmap.schemas.records import LedgerEntry, Task
from vladmap.transforms.counters import StageCounters

STAGE = "index"


@dataclass(eq=False)
class TrainIndex(beam.PTransform):
    """One task that reads the sample's descriptor shards -> a trained, empty index."""

    root: str
    stage: str
    factory: str
    sample_images: int

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.Map(self._train)

    def _train(self, task: Task) -> LedgerEntry:
        sample = _sample(self.root, task, self.sample_images)
        StageCounters(STAGE).add("vectors_of_training", len(sample))
        index = faiss_index.train_index(self.factory, sample.shape[1], sample)
        file = storage.commit_file(self.root, task.output, faiss_index.to_bytes(index), len(sample))
        return commit_entry(self.root, self.stage, task, [file])


def _sample(root: str, task: Task, count: int) -> NDArray[np.float32]:
    """The descriptors (n, D) of a fair sample of `count` images."""
    parts = [
        storage.read_table(storage.join(root, path), ["image_id", "descriptor"])
        for path in task.paths(layout.DESCRIPTORS)
    ]
    ids = [image for table in parts for image in table["image_id"].to_pylist()]
    return np.concatenate(list(map(descriptor_matrix, parts)))[fair_sample(ids, count)]


@dataclass(eq=False)
class AddShards(beam.PTransform):
    """Tasks of descriptor shards -> partial indices, whose ids count from 0 in each shard."""

    root: str
    stage: str

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.Map(self._add)

    def _add(self, task: Task) -> LedgerEntry:
        table = storage.read_table(storage.join(self.root, task.path("descriptors")))
        trained = faiss_index.from_bytes(read_input(self.root, task, task.path("trained")))
        part = faiss_index.add_shard(trained, descriptor_matrix(table))
        file = storage.commit_file(
            self.root, task.output, faiss_index.to_bytes(part), table.num_rows
        )
        StageCounters(STAGE).add("vectors", table.num_rows)
        progress.advance(table.num_rows)
        return commit_entry(self.root, self.stage, task, [file])


@dataclass(eq=False)
class AddSmoothed(beam.PTransform):
    """Tasks of descriptor shards -> partial indices of their smoothed descriptors.

    A task reads its own shard and, as `around`, those of its cell and the cells around it, whose
    images may be neighbours of its own.
    """

    root: str
    stage: str

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.Map(self._add)

    def _add(self, task: Task) -> LedgerEntry:
        own = self._placed(task.shard, task.path("descriptors"))
        around = (self._placed(layout.shard_of(path), path) for path in task.paths("around"))
        smoothed = smooth_shard(own, around, SIGMA_M)
        trained = faiss_index.from_bytes(read_input(self.root, task, task.path("trained")))
        part = faiss_index.to_bytes(faiss_index.add_shard(trained, smoothed))
        file = storage.commit_file(self.root, task.output, part, len(smoothed))
        StageCounters(STAGE).add("vectors_smoothed", len(smoothed))
        progress.advance(len(smoothed))
        return commit_entry(self.root, self.stage, task, [file])

    def _placed(self, shard: str, path: str) -> Placed:
        descriptors = storage.read_table(storage.join(self.root, path))
        images = storage.read_table(
            storage.join(self.root, layout.images(shard)),
            ["image_id", "latitude", "longitude", "heading_deg"],
        )
        latitude, longitude, headings = image_columns(
            descriptors, images, ("latitude", "longitude", "heading_deg")
        )
        return Placed(
            descriptor_matrix(descriptors), ecef_on_ellipsoid(latitude, longitude), headings
        )


@dataclass(eq=False)
class MergeIndex(beam.PTransform):
    """One task that reads all partial indices -> the files of `index/<model>/`.

    These are `global.faiss` (merged from `parts`), `places.faiss` (from `places`, the
    smoothed descriptors), `ids.parquet` and `index.json`. `facts` are the entries of
    `index.json` that are known beforehand; the others are counted and measured here, the recall
    with a sample of `queries` images.
    """

    root: str
    stage: str
    facts: tuple[tuple[str, str | int], ...]
    queries: int = 200

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.Map(self._merge)

    def _merge(self, task: Task) -> LedgerEntry:
        model = str(dict(self.facts)["model"])
        shards = task.paths(layout.DESCRIPTORS)
        merged = self._merged(task, "parts")
        ids = _image_ids(self.root, shards)
        facts = {
            **dict(self.facts),
            "count": len(ids),
            "metric": "inner_product",
            "places_sigma_m": SIGMA_M,
            **faiss_index.recall_of_sample(
                merged, ids, lambda: _matrices(self.root, shards), self.queries
            ),
        }
        files = [
            storage.commit_file(self.root, task.output, faiss_index.to_bytes(merged), len(ids))
        ]
        del merged  # so that only one whole index is in memory
        places = faiss_index.to_bytes(self._merged(task, "places"))
        rows = pa.array(np.arange(len(ids), dtype=np.int64))
        id_table = pa.Table.from_arrays([rows, pa.array(ids, pa.string())], schema=tables.INDEX_IDS)
        json_facts = (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode()
        files += [
            storage.commit_file(self.root, layout.places_index(model), places, len(ids)),
            storage.commit_table(self.root, layout.index_ids(model), id_table),
            storage.commit_file(self.root, layout.index_facts(model), json_facts, 1),
        ]
        StageCounters(STAGE).add("vectors_merged", len(ids))
        return commit_entry(self.root, self.stage, task, files, counts={"vectors": len(ids)})

    def _merged(self, task: Task, role: str) -> faiss_index.Index:
        return faiss_index.merge(
            faiss_index.from_bytes(read_input(self.root, task, path)) for path in task.paths(role)
        )


def _matrices(root: str, shards: Iterable[str]) -> faiss_index.Blocks:
    start = 0
    for path in shards:
        matrix = descriptor_matrix(storage.read_table(storage.join(root, path)))
        yield start, matrix
        start += len(matrix)


def _image_ids(root: str, shards: Iterable[str]) -> list[str]:
    return [
        image
        for path in shards
        for image in storage.read_table(storage.join(root, path), ["image_id"])[
            "image_id"
        ].to_pylist()
    ]


def load_index(
    root: str, model: str, expected: str | None = None
) -> tuple[faiss_index.Index, list[str]]:
    """The global index of an atlas and its image ids by row.

    Raises DamagedFile if `expected` is given and is not the digest of the index.
    """
    path = storage.join(root, layout.global_index(model))
    index = faiss_index.from_bytes(storage.read_whole(path, expected))
    ids = storage.read_table(storage.join(root, layout.index_ids(model)))
    return index, ids["image_id"].to_pylist()
