"""Describe: a global descriptor of each image, in batches, decoding while the model computes.

From shards of `images/` to `descriptors/`, and `rejects/` for photographs that have none. Patch
descriptors, if needed, come from the same forward pass and go to `patches/`.

Metrics have the names of Beam's RunInference, so that dashboards made for it work. Its PyTorch
handler is not used: it falls back to the CPU silently, rejects all of a failed batch, and does not
shrink a batch that does not fit in memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.utils.shared import Shared
from numpy.typing import NDArray

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_shard, reject_row
from vladmap.atlas.photographs import Photo, load_ahead, shard_rows
from vladmap.console import counter as progress
from vladmap.models import load_model
from vladmap.models.aggregated import AggregatedModel
from vladmap.models.base import DescriptorModel
from vladmap.models.batches import BatchDescriber, Description
from vladmap.models.memory import one_thread_a_call
from vladmap.models.patch_table import patch_table
from vladmap.retrieval.descriptors import descriptor_table
from vladmap.retrieval.stored_patches import StoredPatches
from vladmap.schemas import tables
from vladmap.schemas.records import FileRef, LedgerEntry, Task
from vladmap.schemas.rejects import PhotoError, RejectReason
from vladmap.transforms.counters import StageCounters

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


class _Model:
    """Holds a model: Beam shares an object among the workers of a process by a weak reference."""

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
        settings = self._settings
        self._box, self._model = box, box.model
        # On a GPU two lanes: the pixels of one batch are copied while another batch is computed.
        lanes = settings.threads if settings.device == "cpu" else 2
        self._describer = BatchDescriber(box.model, settings.batch_size, lanes, settings.patch_size)
        metrics = beam.metrics.Metrics
        self._inferences = metrics.counter("vladmap.describe", "num_inferences")
        self._latency = metrics.distribution(
            "vladmap.describe", "inference_batch_latency_micro_secs"
        )
        metrics.distribution("vladmap.describe", "load_model_latency_milli_secs").update(
            box.load_milliseconds
        )

    def process(self, task: Task) -> Iterator[LedgerEntry]:
        rows = shard_rows(self._root, task.path("images"))
        ids: list[str] = []
        vectors: list[NDArray[np.float32]] = []
        patches: list[tuple[str, StoredPatches]] = []
        rejects = []
        for photo, description in self._describe(rows):
            error = photo.error
            if description is not None and description.descriptor.any():
                ids.append(photo.row["image_id"])
                vectors.append(description.descriptor)
                if description.patches is not None:
                    patches.append((photo.row["image_id"], description.patches))
            elif error is None:
                # A zero descriptor: a model of local features, and an image that has none.
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
        path = layout.in_cell(settings.patches, task.shard)
        return [storage.commit_table(self._root, path, table)]

    def _describe(self, rows: list[dict[str, Any]]) -> Iterator[tuple[Photo, Description | None]]:
        """Yield photographs with their descriptors; some threads decode while others compute."""
        settings = self._settings
        with ThreadPoolExecutor(settings.threads) as readers:
            ahead = settings.batch_size * (self._describer.lanes + 1)
            photos = load_ahead(
                rows, settings.max_pixels, readers, ahead, self._model.input_long_side
            )
            yield from self._describer.describe(photos)

    def _report(self) -> None:
        """Update the metrics, which Beam accepts only from the thread of the bundle."""
        while self._describer.latencies:
            images, microseconds = self._describer.latencies.popleft()
            self._inferences.inc(images)
            self._latency.update(microseconds)
