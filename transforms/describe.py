"""Describe: one global descriptor an image, in batches, decoding while the model computes.

Where patches are wanted they come from the same forward pass, and go to `patches/`.

Metrics carry RunInference's names, so that dashboards made for it fit. Its PyTorch handler is not
used: it falls back to the CPU without a word, rejects a failed batch whole, and does not shrink a
batch that does not fit in memory.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.utils.shared import Shared
from numpy.typing import NDArray

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_shard, reject_row
from vladmap.atlas.photographs import Photo, load_ahead, shard_rows
from vladmap.console import counter as progress
from vladmap.models import load_model
from vladmap.models.aggregated import AggregatedModel
from vladmap.models.base import DescriptorModel
from vladmap.models.memory import one_thread_a_call, within_memory
from vladmap.retrieval.descriptors import descriptor_table
from vladmap.retrieval.patches import StoredPatches, stored
from vladmap.schemas import tables
from vladmap.schemas.records import FileRef, LedgerEntry, Task
from vladmap.schemas.rejects import PhotoError, RejectReason
from vladmap.transforms.counters import StageCounters
from vladmap.transforms.patches import patch_table

STAGE = "describe"


@dataclass(frozen=True)
class ModelSettings:
    """Which model, and how it runs. `weights` is a path in the atlas, or empty before learning.

    `patch_size` in cells, 0 for no patch descriptors; `patches` is the folder they go to.
    """

    name: str
    checkpoint: str = ""
    weights: str = ""
    weights_digest: str = ""
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
            checkpoint=storage.local_copy(
                storage.join(root, settings.weights), settings.weights_digest
            )
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
