"""Index: train on a sample, add each shard on its own, merge in the shards' order.

The merged index equals the one that a single process would have built; only the merge holds it
whole in memory. Beside the index of the descriptors stands one of the descriptors smoothed over
the photographs taken beside each other, for photographs of another time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_entry, read_input
from vladmap.console import counter as progress
from vladmap.geodesy.wgs84 import ecef_on_ellipsoid
from vladmap.retrieval import index as faiss_index
from vladmap.retrieval.names import SIGMA_M
from vladmap.retrieval.smoothing import smooth, within_reach
from vladmap.schemas import tables
from vladmap.schemas.records import LedgerEntry, Task, shard_cell
from vladmap.transforms.counters import StageCounters
from vladmap.transforms.describe import descriptor_matrix, numbers_of

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
        index = faiss_index.train_index(self.factory, sample.shape[1], sample)
        file = storage.commit_file(self.root, task.output, faiss_index.to_bytes(index), len(sample))
        return commit_entry(self.root, self.stage, task, [file])


def _sample(root: str, task: Task, wanted: int) -> NDArray[np.float32]:
    """The descriptors with the lowest image ids: ids are digests, so this is a fair sample."""
    ids: list[str] = []
    matrices = []
    for role, path in task.reads:
        if role.startswith("descriptors/"):
            table = storage.read_table(storage.join(root, path))
            ids.extend(table["image_id"].to_pylist())
            matrices.append(descriptor_matrix(table))
    order = np.argsort(np.array(ids), kind="stable")[:wanted]
    return np.concatenate(matrices)[np.sort(order)]


@dataclass(eq=False)
class AddShards(beam.PTransform):
    """Tasks of descriptor shards -> partial indices, whose ids count from 0 in each shard."""

    root: str
    stage: str

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.Map(self._add)

    def _add(self, task: Task) -> LedgerEntry:
        table = storage.read_table(storage.join(self.root, task.read("descriptors")))
        trained = faiss_index.from_bytes(read_input(self.root, task, task.read("trained")))
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

    A task reads its own shard and those in the cells around (`around/<shard>`), whose images may
    be neighbours of its own.
    """

    root: str
    stage: str

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.Map(self._add)

    def _add(self, task: Task) -> LedgerEntry:
        own = self._placed(task.shard, task.read("descriptors"))
        parts = [own]
        for role, path in task.reads:
            kind, _, shard = role.partition("/")
            if kind == "around":
                others = self._placed(shard, path)
                near = within_reach(others.positions, own.positions, SIGMA_M)
                parts.append(
                    _Placed(others.vectors[near], others.positions[near], others.headings[near])
                )
        vectors, positions, headings = map(np.concatenate, zip(*parts, strict=True))
        smoothed = smooth(vectors, positions, headings, SIGMA_M, first=len(own.vectors))
        trained = faiss_index.from_bytes(read_input(self.root, task, task.read("trained")))
        part = faiss_index.to_bytes(faiss_index.add_shard(trained, smoothed))
        file = storage.commit_file(self.root, task.output, part, len(smoothed))
        progress.advance(len(smoothed))
        return commit_entry(self.root, self.stage, task, [file])

    def _placed(self, shard: str, path: str) -> _Placed:
        described = storage.read_table(storage.join(self.root, path))
        images = storage.read_table(
            storage.join(self.root, f"images/cell={shard_cell(shard)}/{shard}.parquet"),
            ["image_id", "latitude", "longitude", "heading_deg"],
        )
        latitude, longitude, headings = numbers_of(
            described, images, ("latitude", "longitude", "heading_deg")
        )
        return _Placed(
            descriptor_matrix(described), ecef_on_ellipsoid(latitude, longitude), headings
        )


class _Placed(NamedTuple):
    """Descriptors (N, D), earth-centred metres (N, 3) and headings (N,); NaN where unknown."""

    vectors: NDArray[np.float32]
    positions: NDArray[np.float64]
    headings: NDArray[np.float64]


@dataclass(eq=False)
class MergeIndex(beam.PTransform):
    """One task that reads all partial indices -> the files of `index/<model>/`.

    These are `global.faiss` (of `index/<shard>`), `places.faiss` (of `places/<shard>`, smoothed),
    `ids.parquet` and `index.json`, of which `about` is what it says of the model and the index
    beside what is measured here.
    """

    root: str
    stage: str
    about: tuple[tuple[str, str | int], ...]
    queries: int = 200

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.Map(self._merge)

    def _merge(self, task: Task) -> LedgerEntry:
        folder = task.output.rpartition("/")[0]
        shards = [path for role, path in task.reads if role.startswith("descriptors/")]
        merged = self._merged(task, "index/")
        ids = _image_ids(self.root, shards)
        id_table = pa.Table.from_arrays(
            [pa.array(np.arange(len(ids), dtype=np.int64)), pa.array(ids, pa.string())],
            schema=tables.INDEX_IDS,
        )
        recall = self._self_recall(merged, ids, shards)
        about = {
            **dict(self.about),
            "count": len(ids),
            "metric": "inner_product",
            "places_sigma_m": SIGMA_M,
            **recall,
        }
        files = [
            storage.commit_file(self.root, task.output, faiss_index.to_bytes(merged), len(ids)),
        ]
        del merged  # one whole index in memory at a time
        places = faiss_index.to_bytes(self._merged(task, "places/"))
        files += [
            storage.commit_file(self.root, f"{folder}/places.faiss", places, len(ids)),
            storage.commit_table(self.root, f"{folder}/ids.parquet", id_table),
            storage.commit_file(
                self.root,
                f"{folder}/index.json",
                (json.dumps(about, indent=1, sort_keys=True) + "\n").encode(),
                1,
            ),
        ]
        return commit_entry(self.root, self.stage, task, files, counts={"vectors": len(ids)})

    def _merged(self, task: Task, kind: str) -> faiss_index.Index:
        return faiss_index.merge(
            faiss_index.from_bytes(read_input(self.root, task, path))
            for role, path in task.reads
            if role.startswith(kind)
        )

    def _self_recall(
        self, index: faiss_index.Index, ids: list[str], shards: Iterable[str]
    ) -> dict[str, float | int]:
        """Of a sample's ten exact nearest neighbours, the share that the index finds.

        Exact search reads shard after shard; the collection is never in memory as a whole.
        """
        order = np.argsort(np.array(ids), kind="stable")[: self.queries]
        rows = np.sort(order)
        queries = np.concatenate(
            [
                matrix[rows[(rows >= start) & (rows < start + len(matrix))] - start]
                for start, matrix in self._matrices(shards)
            ]
        )
        return faiss_index.self_recall(index, self._matrices(shards), queries, rows, k=10)

    def _matrices(self, shards: Iterable[str]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        start = 0
        for path in shards:
            matrix = descriptor_matrix(storage.read_table(storage.join(self.root, path)))
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

    DamagedFile where the index's digest is not `expected`, if it is known.
    """
    path = storage.join(root, f"index/{model}/global.faiss")
    index = faiss_index.from_bytes(storage.read_whole(path, expected))
    ids = storage.read_table(storage.join(root, f"index/{model}/ids.parquet"))
    return index, ids["image_id"].to_pylist()
