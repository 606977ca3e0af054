"""Describe: one global descriptor an image, in batches, decoding while the model computes.

Metrics carry RunInference's names, so that dashboards made for it fit. Its PyTorch handler is not
used: it falls back to the CPU without a word, rejects a failed batch whole, and does not shrink a
batch that does not fit in memory.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.utils.shared import Shared
from numpy.typing import NDArray

from models import load_model
from models.base import DescriptorModel
from models.memory import describe_within_memory
from models.vocabulary import fit, sample_local_descriptors, to_bytes
from schemas import tables
from schemas.records import LedgerEntry, Task
from schemas.rejects import PhotoError, RejectReason
from transforms import progress, storage
from transforms.commit import StageCounters, commit_entry, commit_shard, reject_row
from transforms.photos import Photo, load_ahead, shard_rows

STAGE = "describe"


@dataclass(frozen=True)
class ModelSettings:
    """Which model, and how it runs. `weights` is a path in the atlas, or empty before learning."""

    name: str
    checkpoint: str = ""
    weights: str = ""
    device: str = "cpu"
    precision: str = "float32"
    batch_size: int = 16
    max_pixels: int = 200_000_000
    threads: int = 1


class _Model:
    """A model in a weakly referenced box, so that a process's workers can share one."""

    def __init__(self, root: str, settings: ModelSettings) -> None:
        started = time.monotonic()
        self.model: DescriptorModel = load_model(
            settings.name,
            checkpoint=storage.local_copy(storage.join(root, settings.weights))
            if settings.weights
            else settings.checkpoint or None,
            device=settings.device,
            precision=settings.precision,
        )
        self.load_milliseconds = int(1000 * (time.monotonic() - started))


@dataclass(eq=False)
class DescribeImages(beam.PTransform):
    """Tasks of image shards -> ledger entries of `descriptors/`."""

    root: str
    stage: str
    settings: ModelSettings

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.ParDo(_Describe(self.root, self.stage, self.settings, Shared()))


class _Describe(beam.DoFn):
    def __init__(self, root: str, stage: str, settings: ModelSettings, shared: Shared) -> None:
        self._root, self._stage, self._settings, self._shared = root, stage, settings, shared

    def setup(self) -> None:
        box = self._shared.acquire(
            lambda: _Model(self._root, self._settings), tag=self._settings.weights
        )
        self._box, self._model = box, box.model
        # A batch that once did not fit the GPU's memory is not tried again.
        self._limit = self._settings.batch_size
        metrics = beam.metrics.Metrics
        self._inferences = metrics.counter("vladmap.describe", "num_inferences")
        self._latency = metrics.distribution(
            "vladmap.describe", "inference_batch_latency_micro_secs"
        )
        metrics.distribution("vladmap.describe", "load_model_latency_milli_secs").update(
            box.load_milliseconds
        )

    def process(self, task: Task) -> Iterator[LedgerEntry]:
        settings = self._settings
        rows = shard_rows(self._root, task.read("images"))
        ids: list[str] = []
        vectors: list[NDArray[np.float32]] = []
        rejects = []
        with ThreadPoolExecutor(settings.threads) as pool:
            photos = load_ahead(
                rows, settings.max_pixels, pool, 2 * settings.batch_size, self._model.input_long_side
            )
            for batch in _batches(photos, settings.batch_size):
                failed = [photo for photo in batch if photo.error]
                good = [photo for photo in batch if photo.pixels is not None]
                found = self._infer([photo.pixels for photo in good if photo.pixels is not None])
                for photo, vector in zip(good, found, strict=True):
                    # Only a classical model gives zero: an image without a single feature.
                    if not vector.any():
                        error = PhotoError(RejectReason.NO_DESCRIPTOR, "nothing in it to describe")
                        rejects.append(
                            reject_row(photo.row["uri"], photo.row["image_id"], STAGE, error)
                        )
                        continue
                    ids.append(photo.row["image_id"])
                    vectors.append(vector)
                for photo in failed:
                    assert photo.error is not None
                    row = photo.row
                    rejects.append(reject_row(row["uri"], row["image_id"], STAGE, photo.error))
                progress.advance(len(batch))
        counters = StageCounters(STAGE)
        counters.add("images", len(ids))
        counters.add("rejects", len(rejects))
        spec = self._model.spec
        schema = tables.descriptors(spec.dimension, spec.name, spec.fingerprint)
        yield commit_shard(
            self._root,
            self._stage,
            task,
            descriptor_table(ids, vectors, schema),
            rejects,
            counts={"images": len(ids), "rejects": len(rejects)},
        )

    def _infer(self, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        started = time.monotonic()
        found, self._limit = describe_within_memory(self._model, images, self._limit)
        self._inferences.inc(len(images))
        self._latency.update(int(1e6 * (time.monotonic() - started)))
        return found


def _batches(items: Iterable[Photo], size: int) -> Iterator[list[Photo]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def descriptor_table(
    ids: list[str], vectors: list[NDArray[np.float32]], schema: pa.Schema
) -> pa.Table:
    """Rows sorted by image_id."""
    dimension = schema.field("descriptor").type.list_size
    flat = np.concatenate(vectors) if vectors else np.zeros(0, np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), dimension)
    table = pa.Table.from_arrays([pa.array(ids, pa.string()), column], schema=schema)
    return table.sort_by("image_id")


def descriptor_matrix(table: pa.Table) -> NDArray[np.float32]:
    """(N, D) float32 of a descriptor table."""
    column = table["descriptor"].combine_chunks()
    dimension = column.type.list_size
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat.reshape(-1, dimension), dtype=np.float32)


@dataclass(eq=False)
class LearnVocabulary(beam.PTransform):
    """One task -> the model's weights in the atlas, learnt from a sample of its photographs.

    The sample's local descriptors cross one shuffle: `per_image` rows for each of a few hundred
    images, whatever the size of the collection.
    """

    root: str
    stage: str
    settings: ModelSettings
    clusters: int
    whiten: int
    seed: int
    per_image: int = 256

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return (
            tasks
            | "Sample" >> beam.FlatMap(_sample_parts, self.root)
            | "Spread" >> beam.Reshuffle()
            | "Local descriptors" >> beam.ParDo(_Sample(self.root, self.settings, self.per_image, self.seed))
            | "Gather" >> beam.GroupByKey()
            | "Fit" >> beam.Map(self._fit)
        )

    def _fit(self, group: tuple[str, Iterable[tuple[Task, int, NDArray[np.float32]]]]) -> LedgerEntry:
        parts = sorted(group[1], key=lambda part: part[1])
        task = parts[0][0]
        vocabulary = fit(
            self.settings.name,
            self.settings.checkpoint or None,
            np.concatenate([part[2] for part in parts]),
            clusters=self.clusters,
            seed=self.seed,
        )
        file = storage.commit_file(self.root, task.output, to_bytes(vocabulary), 1)
        return commit_entry(self.root, self.stage, task, [file])


_SAMPLE_PART = 16


def _sample_parts(task: Task, root: str) -> Iterator[tuple[Task, int, list[dict[str, object]]]]:
    rows = storage.read_table(storage.join(root, task.read("sample"))).to_pylist()
    for start in range(0, len(rows), _SAMPLE_PART):
        yield task, start, rows[start : start + _SAMPLE_PART]


class _Sample(beam.DoFn):
    def __init__(self, root: str, settings: ModelSettings, per_image: int, seed: int) -> None:
        self._root, self._settings, self._per_image, self._seed = root, settings, per_image, seed

    def process(
        self, part: tuple[Task, int, list[dict[str, object]]]
    ) -> Iterator[tuple[str, tuple[Task, int, NDArray[np.float32]]]]:
        task, start, rows = part
        with ThreadPoolExecutor(self._settings.threads) as pool:
            photos = list(load_ahead(rows, self._settings.max_pixels, pool, _SAMPLE_PART))
        images = [photo.pixels for photo in photos if photo.pixels is not None]
        if images:
            found = sample_local_descriptors(
                self._settings.name,
                self._settings.checkpoint or None,
                images,
                per_image=self._per_image,
                seed=self._seed,
            )
            yield task.shard, (task, start, found)
        progress.advance(len(rows))
