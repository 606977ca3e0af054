"""Index: train on a sample, add each shard on its own, merge in the shards' order.

Shards of `descriptors/` in, the files of `index/<model>/` out. The merged index equals the one that
a single process would have built; nobody holds it whole (retrieval.index_parts). Beside the index
of the descriptors stands one of the descriptors smoothed over the photographs taken beside each
other, for queries that were taken at another time.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_entry, read_input
from vladmap.atlas.large_files import commit_written
from vladmap.console import counter as progress
from vladmap.geodesy.wgs84 import ecef_on_ellipsoid
from vladmap.retrieval import faiss_index, index_parts
from vladmap.retrieval.descriptors import ImageIds, descriptor_matrix, fair_sample, image_columns
from vladmap.retrieval.names import SIGMA_M
from vladmap.retrieval.smoothing import Placed, smooth_shard
from vladmap.schemas import tables
from vladmap.schemas.records import FileRef, LedgerEntry, Task
from vladmap.schemas.rejects import UserError
from vladmap.transforms.counters import StageCounters
from vladmap.weights.devices import gpu

STAGE = "index"


@dataclass(eq=False)
class TrainIndex(beam.PTransform):
    """One task that reads the sample's descriptor shards -> a trained, empty index."""

    root: str
    stage: str
    factory: str
    sample_images: int
    device: str = "cpu"

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.Map(self._train)

    def _train(self, task: Task) -> LedgerEntry:
        sample = _sample(self.root, task, self.sample_images)
        StageCounters(STAGE).add("vectors_of_training", len(sample))
        index = faiss_index.train_index(self.factory, sample.shape[1], sample, self.device)
        file = storage.commit_file(self.root, task.output, faiss_index.to_bytes(index), len(sample))
        return commit_entry(self.root, self.stage, task, [file])


def _sample(root: str, task: Task, count: int) -> NDArray[np.float32]:
    """The descriptors (n, D) of a fair sample of `count` images."""
    parts = [
        storage.read_table(storage.join(root, path), ["image_id", "descriptor"])
        for path in task.paths(layout.DESCRIPTORS)
    ]
    table = pa.concat_tables(parts)
    return descriptor_matrix(table)[fair_sample(table["image_id"], count)]


@functools.lru_cache(maxsize=1)
def _encoder(
    place: str, digest: str | None, device: str
) -> Callable[[NDArray[np.float32]], index_parts.Codes]:
    """What encodes by the trained index of the tasks at work: read once a process."""
    trained = faiss_index.from_bytes(storage.read_whole(place, digest))
    return index_parts.encoder(trained, gpu(device))


def _commit_codes(root: str, task: Task, vectors: NDArray[np.float32], device: str) -> FileRef:
    path = task.path("trained")
    encode = _encoder(storage.join(root, path), task.digest_of.get(path), device)
    codes = encode(vectors)
    return storage.commit_file(root, task.output, codes.tobytes(), len(codes))


@dataclass(eq=False)
class AddShards(beam.PTransform):
    """Tasks of descriptor shards -> parts of the index: the codes of their vectors."""

    root: str
    stage: str
    device: str = "cpu"

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.Map(self._add)

    def _add(self, task: Task) -> LedgerEntry:
        table = storage.read_table(storage.join(self.root, task.path("descriptors")))
        file = _commit_codes(self.root, task, descriptor_matrix(table), self.device)
        StageCounters(STAGE).add("vectors", table.num_rows)
        progress.advance(table.num_rows)
        return commit_entry(self.root, self.stage, task, [file])


@dataclass(eq=False)
class AddSmoothed(beam.PTransform):
    """Tasks of descriptor shards -> parts of the index of their smoothed descriptors.

    A task reads its own shard and, as `around`, those of its cell and the cells around it, whose
    images may be neighbours of its own.
    """

    root: str
    stage: str
    device: str = "cpu"

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.Map(self._add)

    def _add(self, task: Task) -> LedgerEntry:
        own = self._placed(task.shard, task.path("descriptors"))
        around = (self._placed(layout.shard_of(path), path) for path in task.paths("around"))
        smoothed = smooth_shard(own, around, SIGMA_M)
        file = _commit_codes(self.root, task, smoothed, self.device)
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
    device: str = "cpu"

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.Map(self._merge)

    def _merge(self, task: Task) -> LedgerEntry:
        model = str(dict(self.facts)["model"])
        shards = task.paths(layout.DESCRIPTORS)
        ids_of = [_image_ids(self.root, path) for path in shards]
        ids = pa.chunked_array([chunk for each in ids_of for chunk in each.chunks], pa.string())
        files = [
            self._commit_merged(task, role, path, list(map(len, ids_of)))
            for role, path in (("parts", task.output), ("places", layout.places_index(model)))
        ]
        facts = {
            **dict(self.facts),
            "count": len(ids),
            "metric": "inner_product",
            "places_sigma_m": SIGMA_M,
            **faiss_index.recall_of_sample(
                index_parts.open_index(storage.local_copy(storage.join(self.root, task.output))),
                ids,
                lambda: _matrices(self.root, shards),
                self.queries,
                device=self.device,
            ),
        }
        rows = pa.array(np.arange(len(ids), dtype=np.int64))
        id_table = pa.Table.from_arrays([rows, ids], schema=tables.INDEX_IDS)
        json_facts = (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode()
        files += [
            storage.commit_table(self.root, layout.index_ids(model), id_table),
            storage.commit_file(self.root, layout.index_facts(model), json_facts, 1),
        ]
        StageCounters(STAGE).add("vectors_merged", len(ids))
        return commit_entry(self.root, self.stage, task, files, counts={"vectors": len(ids)})

    def _commit_merged(self, task: Task, role: str, path: str, rows: Sequence[int]) -> FileRef:
        """Merge the parts of a role; a trained index of its own, for merging may fill it.

        `rows` are the images of each part: another number of vectors would give all that follow to
        the wrong images. Raises UserError for such a part.
        """
        trained = faiss_index.from_bytes(read_input(self.root, task, task.path("trained")))

        def codes() -> Iterator[index_parts.Codes]:
            for part, count in zip(task.paths(role), rows, strict=True):
                data = np.frombuffer(read_input(self.root, task, part), np.uint8)
                if len(data) != count * trained.sa_code_size():
                    raise UserError(
                        f"index: {storage.join(self.root, part)} has not one vector for each of "
                        f"its {count} images: delete it and run the same `vladmap build` again"
                    )
                yield data.reshape(count, trained.sa_code_size())

        def write(local: str) -> None:
            index_parts.write_merged(trained, codes, local)

        return commit_written(self.root, path, write, sum(rows))


def _matrices(root: str, shards: Iterable[str]) -> faiss_index.Blocks:
    start = 0
    for path in shards:
        matrix = descriptor_matrix(storage.read_table(storage.join(root, path)))
        yield start, matrix
        start += len(matrix)


def _image_ids(root: str, path: str) -> pa.ChunkedArray:
    return storage.read_table(storage.join(root, path), ["image_id"])["image_id"]


def load_index(
    root: str, model: str, expected: str | None = None
) -> tuple[faiss_index.Index, ImageIds]:
    """The global index of an atlas, left in its file where that is local, and its image ids by row.

    Raises DamagedFile if `expected` is given and is not the digest of the index.
    """
    path = storage.local_copy(storage.join(root, layout.global_index(model)), expected)
    ids = storage.read_table(storage.join(root, layout.index_ids(model)), ["image_id"])
    return index_parts.open_index(path), ids["image_id"].combine_chunks()
