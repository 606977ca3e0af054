"""Describe: one global descriptor an image, in batches, decoding while the model computes.

Where patches are wanted they come from the same forward pass, and go to `patches/`.

Metrics carry RunInference's names, so that dashboards made for it fit. Its PyTorch handler is not
used: it falls back to the CPU without a word, rejects a failed batch whole, and does not shrink a
batch that does not fit in memory.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.utils.shared import Shared
from numpy.typing import NDArray

from models import load_model
from models.aggregated import AggregatedModel
from models.base import DescriptorModel
from models.learning import fit, images_with_words, weigh_words
from models.local import sample
from models.memory import one_thread_a_call, within_memory
from models.registry import local_descriptors
from models.vocabulary import from_bytes, reduce, to_bytes
from models.whitening import Whitening
from retrieval.patches import StoredPatches, stored
from schemas import tables
from schemas.records import FileRef, LedgerEntry, Task
from schemas.rejects import PhotoError, RejectReason
from transforms import progress, storage
from transforms.commit import StageCounters, commit_entry, commit_shard, reject_row
from transforms.patches import patch_table
from transforms.photos import Photo, load_ahead, shard_rows
from transforms.whitening import FitWhitening

STAGE = "describe"


@dataclass(frozen=True)
class ModelSettings:
    """Which model, and how it runs. `weights` is a path in the atlas, or empty before learning.

    `patch_size` in cells, 0 for no patch descriptors; `patches` is the folder they go to.
    """

    name: str
    checkpoint: str = ""
    weights: str = ""
    device: str = "cpu"
    precision: str = "float32"
    batch_size: int = 16
    max_pixels: int = 200_000_000
    threads: int = 1
    patch_size: int = 0
    patches: str = ""
    compile: bool = False


Described = tuple[NDArray[np.float32], StoredPatches | None]


class _Model:
    """A model in a weakly referenced box, so that a process's workers can share one."""

    def __init__(self, root: str, settings: ModelSettings) -> None:
        started = time.monotonic()
        if settings.device == "cpu":
            one_thread_a_call()
        self.model: DescriptorModel = load_model(
            settings.name,
            checkpoint=storage.local_copy(storage.join(root, settings.weights))
            if settings.weights
            else settings.checkpoint or None,
            device=settings.device,
            precision=settings.precision,
        )
        if settings.compile and isinstance(self.model, AggregatedModel):
            self.model.compile()
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
        self._measured: deque[tuple[int, int]] = deque()
        metrics = beam.metrics.Metrics
        self._inferences = metrics.counter("vladmap.describe", "num_inferences")
        self._latency = metrics.distribution(
            "vladmap.describe", "inference_batch_latency_micro_secs"
        )
        metrics.distribution("vladmap.describe", "load_model_latency_milli_secs").update(
            box.load_milliseconds
        )

    def process(self, task: Task) -> Iterator[LedgerEntry]:
        rows = shard_rows(self._root, task.read("images"))
        ids: list[str] = []
        vectors: list[NDArray[np.float32]] = []
        patches: list[tuple[str, StoredPatches]] = []
        rejects = []
        for photo, described in self._described(rows):
            error = photo.error
            if described is not None and described[0].any():
                ids.append(photo.row["image_id"])
                vectors.append(described[0])
                if described[1] is not None:
                    patches.append((photo.row["image_id"], described[1]))
            elif error is None:
                # Only a classical model gives zero: an image without a single feature.
                error = PhotoError(RejectReason.NO_DESCRIPTOR, "nothing in it to describe")
            if error is not None:
                rejects.append(reject_row(photo.row["uri"], photo.row["image_id"], STAGE, error))
            progress.advance()
        self._report()
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
            others=self._commit_patches(task, patches),
        )

    def _commit_patches(
        self, task: Task, patches: list[tuple[str, StoredPatches]]
    ) -> list[FileRef]:
        settings, spec = self._settings, self._model.spec
        if not settings.patch_size:
            return []
        assert isinstance(self._model, AggregatedModel)
        table = patch_table(
            patches, settings.patch_size, self._model.stride, spec.name, spec.fingerprint
        )
        path = f"{settings.patches}/cell={task.cell}/{task.shard}.parquet"
        return [storage.commit_table(self._root, path, table)]

    def _described(self, rows: list[dict[str, Any]]) -> Iterator[tuple[Photo, Described | None]]:
        """Photographs with their descriptors, None where they cannot be read.

        Some threads decode what comes next while others compute. A GPU has two that compute: the
        pixels of one are copied while the other's batch is on the way through the network.
        """
        settings = self._settings
        lanes = settings.threads if settings.device == "cpu" else 2
        with ThreadPoolExecutor(settings.threads) as readers, ThreadPoolExecutor(lanes) as lane:
            ahead = settings.batch_size * (lanes + 1)
            photos = load_ahead(
                rows, settings.max_pixels, readers, ahead, self._model.input_long_side
            )
            waiting: deque[tuple[list[Photo], Future[list[Described]]]] = deque()
            for batch in _batches(photos, settings.batch_size):
                images = [photo.pixels for photo in batch if photo.pixels is not None]
                waiting.append((batch, lane.submit(self._infer, images)))
                if len(waiting) > lanes:
                    yield from _paired(*waiting.popleft())
            while waiting:
                yield from _paired(*waiting.popleft())

    def _infer(self, images: list[NDArray[np.uint8]]) -> list[Described]:
        started = time.monotonic()
        found, fits = within_memory(self._describe, images, self._limit)
        self._limit = min(self._limit, fits)  # another lane may know of less room
        self._measured.append((len(images), int(1e6 * (time.monotonic() - started))))
        return found

    def _describe(self, images: Sequence[NDArray[np.uint8]]) -> Iterable[Described]:
        model, size = self._model, self._settings.patch_size
        if not size:
            return ((row, None) for row in model.describe(images))
        assert isinstance(model, AggregatedModel)  # the options see to it
        # In int8 at once: a shard's patches wait in memory for its table.
        described = model.describe_each(images, (size,))
        return ((row, stored(patches)) for row, patches in described)

    def _report(self) -> None:
        """Metrics belong to the bundle's own thread."""
        while self._measured:
            images, microseconds = self._measured.popleft()
            self._inferences.inc(images)
            self._latency.update(microseconds)


def _paired(
    batch: list[Photo], future: Future[list[Described]]
) -> Iterator[tuple[Photo, Described | None]]:
    found = iter(future.result())
    for photo in batch:
        yield photo, None if photo.pixels is None else next(found)


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

    The local descriptors of its first `words_from` images cross one shuffle: `per_image` rows for
    each of a few hundred images, whatever the size of the collection. So do the descriptors of all
    of it where they are reduced to `dimension`, some two thousand. A whitening, where one is
    wanted, is fitted on ten times as many descriptors as it has dimensions, which no worker ever
    holds together.
    """

    root: str
    stage: str
    settings: ModelSettings
    clusters: int
    whiten: int
    seed: int
    patch_dimension: int = 0
    words_from: int = 256
    dimension: int = 0
    per_image: int = 256

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        parts = tasks | "Sample" >> beam.FlatMap(_sample_parts, self.root) | beam.Reshuffle()
        local = _Sample(self.root, self.settings, self.per_image, self.seed)
        first = parts | "First" >> beam.Filter(lambda part, end: part[1] < end, self.words_from)
        weights = (
            first
            | "Local descriptors" >> beam.ParDo(local)
            | "Gather" >> beam.GroupByKey()
            | "Fit" >> beam.Map(self._fit)
        )
        if self.settings.name == "bovw":
            learnt = beam.pvalue.AsSingleton(weights)
            weights = (
                parts
                | "Words of sample" >> beam.ParDo(_CountWords(self.root, self.settings), learnt)
                | "Gather counts" >> beam.GroupByKey()
                | "Weigh words" >> beam.Map(self._weigh_words, learnt)
            )
        # Before the descriptors are shortened: patches are projected from their full length.
        if self.patch_dimension:
            learnt = beam.pvalue.AsSingleton(weights)
            describe = _PatchSample(self.root, self.settings, self.patch_dimension, self.seed)
            whitening = (
                parts
                | "Patches of sample" >> beam.ParDo(describe, learnt)
                | "Fit whitening of patches"
                >> FitWhitening(self.patch_dimension, self.seed, "patches")
            )
            weights |= "Whiten patches" >> beam.Map(
                _put, "patch_whitening", beam.pvalue.AsSingleton(whitening)
            )
        if self.whiten:
            learnt = beam.pvalue.AsSingleton(weights)
            whitening = (
                parts
                | "Describe sample" >> beam.ParDo(_DescribeSample(self.root, self.settings), learnt)
                | "Fit whitening" >> FitWhitening(self.whiten, self.seed)
            )
            weights |= "Whiten" >> beam.Map(_put, "whitening", beam.pvalue.AsSingleton(whitening))
        if self.dimension:
            learnt = beam.pvalue.AsSingleton(weights)
            weights = (
                parts
                | "Describe to reduce" >> beam.ParDo(_Rows(self.root, self.settings), learnt)
                | "Gather descriptors" >> beam.GroupByKey()
                | "Reduce" >> beam.Map(self._reduce, learnt)
            )
        return weights | "Commit" >> beam.Map(self._commit)

    def _fit(self, group: tuple[str, Iterable[_Part]]) -> tuple[Task, bytes]:
        task, descriptors = _gathered(group)
        vocabulary = fit(
            self.settings.name,
            self.settings.checkpoint or None,
            descriptors,
            clusters=self.clusters,
            seed=self.seed,
        )
        return task, to_bytes(vocabulary)

    def _reduce(
        self, group: tuple[str, Iterable[_Part]], learnt: tuple[Task, bytes]
    ) -> tuple[Task, bytes]:
        task, descriptors = _gathered(group)
        return task, to_bytes(reduce(from_bytes(learnt[1]), descriptors, self.dimension))

    def _weigh_words(
        self, group: tuple[str, Iterable[_Part]], learnt: tuple[Task, bytes]
    ) -> tuple[Task, bytes]:
        parts = list(group[1])
        counts = np.sum([part[2] for part in parts], axis=0)
        return parts[0][0], to_bytes(weigh_words(from_bytes(learnt[1]), counts))

    def _commit(self, weights: tuple[Task, bytes]) -> LedgerEntry:
        task, data = weights
        return commit_entry(
            self.root, self.stage, task, [storage.commit_file(self.root, task.output, data, 1)]
        )


def _put(weights: tuple[Task, bytes], name: str, whitening: Whitening) -> tuple[Task, bytes]:
    fitted: dict[str, Any] = {name: whitening}
    vocabulary = dataclasses.replace(from_bytes(weights[1]), **fitted)
    return weights[0], to_bytes(vocabulary)


_Part = tuple[Task, int, NDArray[np.float32]]


def _gathered(group: tuple[str, Iterable[_Part]]) -> tuple[Task, NDArray[np.float32]]:
    """The parts of a sample in order, however the shuffle delivered them."""
    parts = sorted(group[1], key=lambda part: part[1])
    return parts[0][0], np.concatenate([part[2] for part in parts])


_SAMPLE_PART = 16


def _sample_parts(task: Task, root: str) -> Iterator[tuple[Task, int, list[dict[str, object]]]]:
    rows = storage.read_table(storage.join(root, task.read("sample"))).to_pylist()
    for start in range(0, len(rows), _SAMPLE_PART):
        yield task, start, rows[start : start + _SAMPLE_PART]


class _Sample(beam.DoFn):
    def __init__(self, root: str, settings: ModelSettings, per_image: int, seed: int) -> None:
        self._root, self._settings, self._per_image, self._seed = root, settings, per_image, seed

    def setup(self) -> None:
        one_thread_a_call()
        settings = self._settings
        self._features = local_descriptors(
            settings.name, settings.checkpoint or None, device=settings.device
        ).features

    def process(self, part: tuple[Task, int, list[dict[str, Any]]]) -> Iterator[tuple[str, _Part]]:
        task, start, rows = part
        images = _pixels(rows, self._settings, self._features.input_size.target)
        if images:
            found = sample(self._features, images, self._per_image, self._seed)
            yield task.shard, (task, start, found)
        progress.advance(len(rows))


class _CountWords(beam.DoFn):
    """How many of a part's images have each word."""

    def __init__(self, root: str, settings: ModelSettings) -> None:
        self._root, self._settings = root, settings

    def setup(self) -> None:
        self._features = local_descriptors(self._settings.name).features

    def process(
        self, part: tuple[Task, int, list[dict[str, Any]]], learnt: tuple[Task, bytes]
    ) -> Iterator[tuple[str, tuple[Task, int, NDArray[np.int64]]]]:
        task, start, rows = part
        images = _pixels(rows, self._settings, self._features.input_size.target)
        local = self._features.extract(images)
        yield task.shard, (task, start, images_with_words(from_bytes(learnt[1]), local))


class _DescribeSample(beam.DoFn):
    """Global descriptors of a part's images, by the model as it is learnt so far."""

    _model: DescriptorModel | None = None

    def __init__(self, root: str, settings: ModelSettings) -> None:
        self._root, self._settings = root, settings

    def process(
        self, part: tuple[Task, int, list[dict[str, Any]]], learnt: tuple[Task, bytes]
    ) -> Iterator[NDArray[np.float32]]:
        task, start, rows = part
        settings = self._settings
        if self._model is None:
            one_thread_a_call()
            self._model = load_model(settings.name, learnt[1], settings.device, settings.precision)
        images = _pixels(rows, settings, self._model.input_long_side)
        if images:
            yield self._describe(self._model, images, task, start)

    def _describe(
        self, model: DescriptorModel, images: list[NDArray[np.uint8]], task: Task, start: int
    ) -> NDArray[np.float32]:
        return model.describe(images)


class _Rows(_DescribeSample):
    """Global descriptors with the place of their part in the sample."""

    def process(  # type: ignore[override]
        self, part: tuple[Task, int, list[dict[str, Any]]], learnt: tuple[Task, bytes]
    ) -> Iterator[tuple[str, _Part]]:
        task, start, _ = part
        for descriptors in super().process(part, learnt):
            yield task.shard, (task, start, descriptors)


class _PatchSample(_DescribeSample):
    """As many patches of each image, drawn by seed, as a whitening needs of them all."""

    _each = 0

    def __init__(self, root: str, settings: ModelSettings, dimension: int, seed: int) -> None:
        super().__init__(root, settings)
        self._dimension, self._seed = dimension, seed

    def _describe(
        self, model: DescriptorModel, images: list[NDArray[np.uint8]], task: Task, start: int
    ) -> NDArray[np.float32]:
        assert isinstance(model, AggregatedModel)
        if not self._each:
            path = storage.join(self._root, task.read("sample"))
            # A fifth more than needed: some photographs cannot be read.
            count = storage.read_table(path, ["image_id"]).num_rows
            self._each = -(-12 * self._dimension // count)
        drawn = []
        described = model.describe_each(images, (self._settings.patch_size,))
        for place, (_, patches) in enumerate(described):
            found = patches.descriptors[0][0]
            order = np.random.default_rng([self._seed, start + place]).permutation(len(found))
            drawn.append(found[np.sort(order[: self._each])])
        return np.concatenate(drawn)


def _pixels(
    rows: list[dict[str, Any]],
    settings: ModelSettings,
    target: Callable[[int, int], tuple[int, int]],
) -> list[NDArray[np.uint8]]:
    """Pixels of the photographs in `rows` that can be read, at the size `target` wants."""
    with ThreadPoolExecutor(settings.threads) as pool:
        photos = load_ahead(rows, settings.max_pixels, pool, _SAMPLE_PART, target)
        return [photo.pixels for photo in photos if photo.pixels is not None]
