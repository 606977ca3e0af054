"""Describe: a global descriptor of each image, in batches, decoding while the model computes.

From shards of `images/` to `descriptors/`, and `rejects/` for photographs that have none. Patch
descriptors, if needed, come from the same forward pass and go to `patches/`. What reads, decodes
and computes belongs to the worker's process and lives as long; batches are filled across shards,
and each shard is committed on its own.

Metrics have the names of Beam's RunInference, so that dashboards made for it work. Its PyTorch
handler is not used: it falls back to the CPU silently, rejects all of a failed batch, and does not
shrink a batch that does not fit in memory.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.shared import Shared
from apache_beam.utils.windowed_value import WindowedValue

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_shard, reject_row
from vladmap.atlas.photographs import shard_rows
from vladmap.atlas.reading import How, ProcessReader, Reader, ThreadReader
from vladmap.models import load_model
from vladmap.models.aggregated import AggregatedModel
from vladmap.models.base import DescriptorModel
from vladmap.models.batches import BatchDescriber
from vladmap.models.computing import Description
from vladmap.models.encoded import cuda_decoder
from vladmap.models.memory import one_thread_a_call
from vladmap.models.patch_table import patch_table
from vladmap.retrieval.descriptors import descriptor_table
from vladmap.schemas import tables
from vladmap.schemas.records import FileRef, LedgerEntry, Task
from vladmap.schemas.rejects import PhotoError, RejectReason
from vladmap.transforms.counters import StageCounters
from vladmap.transforms.shard_stream import Described, ShardStream

STAGE = "describe"

# Threads that write shards where processes read: patches of a shard take half a second to be
# written and read back, a GPU makes them in a fraction of it.
_MOST_WRITERS = 8
_FILE_SLOT = 1 << 22  # bytes; a file that is larger comes another way


@dataclass(frozen=True)
class ModelSettings:
    """Which model, and how it runs. `weights` is a path in the atlas, or empty before learning.

    `patch_size` in cells, 0 for no patch descriptors; `patches` is the folder they go to. `threads`
    read and decode, or as many `processes` where there are any; `decode_on_device` leaves JPEGs to
    the GPU.
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
    processes: int = 0
    decode_on_device: bool = False


class _Worker:
    """What describes in one process: a model, and what reads and computes for it.

    In a weakly referenced box, so that the process's threads can share one. What it started ends
    when the last that `use` it have ended, and is started anew for the next.
    """

    def __init__(self, root: str, settings: ModelSettings) -> None:
        started = time.monotonic()
        if settings.device == "cpu":
            one_thread_a_call()
        self.settings = settings
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
        self._lock, self._users = threading.Lock(), 0

    def use(self) -> None:
        """Have it ready until `leave`."""
        with self._lock:
            if self._users == 0:
                self.describer = self._new_describer()
                self.ahead = self._ahead()
                try:
                    self.reader = self._new_reader()
                except BaseException:
                    self.describer.close()
                    raise
                # Files are written while the next images are described.
                self.commits = ThreadPoolExecutor(self.writers, "commit")
            self._users += 1  # last: where it fails, the next setup begins anew

    def leave(self) -> None:
        """End what was started, where nobody else uses it."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self.reader.close()
                self.describer.close()
                self.commits.shutdown(wait=True, cancel_futures=True)
                # The graphs recorded on a GPU would hold its memory through later stages.
                del self.describer, self.reader, self.commits

    def _new_describer(self) -> BatchDescriber:
        settings, model = self.settings, self.model
        decoder = None
        if self._as_files:
            assert isinstance(model, AggregatedModel)
            decoder = cuda_decoder(model.device)
        return BatchDescriber(
            model, settings.batch_size, settings.threads, settings.patch_size, decoder
        )

    @property
    def _as_files(self) -> bool:
        """Whether JPEGs are decoded by a GPU: only networks run on one."""
        return self.settings.decode_on_device and isinstance(self.model, AggregatedModel)

    @property
    def writers(self) -> int:
        """Shards that are written at a time."""
        return min(_MOST_WRITERS, max(1, self.settings.processes // 2))

    def _ahead(self) -> int:
        """Photographs that are read before they are wanted: a batch, and one for each who reads."""
        settings = self.settings
        if settings.processes:
            return 2 * self.describer.batch_size + 16 * settings.processes
        return settings.batch_size * (settings.threads + 1)

    def _new_reader(self) -> Reader:
        settings, size = self.settings, self.model.spec.input_size
        how = How(settings.max_pixels, size.target, self._as_files)
        if not settings.processes:
            return ThreadReader(how, settings.threads)
        slot = _FILE_SLOT if self._as_files else 3 * size.most_pixels
        return ProcessReader(how, settings.processes, self.ahead, slot)


@dataclass(eq=False)
class DescribeImages(beam.PTransform):
    """Tasks of image shards -> ledger entries of `descriptors/`."""

    root: str
    stage: str
    settings: ModelSettings

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.ParDo(_Describe(self.root, self.stage, self.settings, Shared()))


class _Describe(beam.DoFn):
    """Shards come out some time after they went in, and all of them at the end of the bundle."""

    def __init__(self, root: str, stage: str, settings: ModelSettings, shared: Shared) -> None:
        self._root, self._stage, self._settings, self._shared = root, stage, settings, shared

    def setup(self) -> None:
        worker = self._shared.acquire(
            lambda: _Worker(self._root, self._settings), tag=self._settings.weights
        )
        worker.use()
        self._worker: _Worker = worker
        self._stream: ShardStream[Task] = ShardStream(worker.reader, worker.describer, worker.ahead)
        self._committing: deque[Future[LedgerEntry]] = deque()
        metrics = beam.metrics.Metrics
        self._inferences = metrics.counter("vladmap.describe", "num_inferences")
        self._latency = metrics.distribution(
            "vladmap.describe", "inference_batch_latency_micro_secs"
        )
        metrics.distribution("vladmap.describe", "load_model_latency_milli_secs").update(
            worker.load_milliseconds
        )

    def start_bundle(self) -> None:
        # What a bundle that failed left on its way comes again.
        self._stream.abandon()
        self._committing.clear()

    def process(self, task: Task) -> Iterator[LedgerEntry]:
        for done in self._stream.feed(task, shard_rows(self._root, task.path("images"))):
            self._commit(*done)
        yield from self._committed(wait=False)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for done in self._stream.finish():
            self._commit(*done)
        yield from map(GlobalWindows.windowed_value, self._committed(wait=True))

    def teardown(self) -> None:
        self._stream.abandon()
        self._worker.leave()

    def _commit(self, task: Task, described: list[Described]) -> None:
        # One more than are written: what is described and not yet written is in memory.
        held = self._worker.writers + 1
        if len(self._committing) >= held:
            self._committing[-held].exception()  # waits for it; raised where it is taken
        self._committing.append(
            self._worker.commits.submit(
                commit_described,
                self._root,
                self._stage,
                task,
                described,
                self._worker.model,
                self._settings,
            )
        )

    def _committed(self, wait: bool) -> Iterator[LedgerEntry]:
        """Entries of the shards that are committed by now, or of all.

        Metrics belong to the bundle's own thread.
        """
        counters = StageCounters(STAGE)
        while self._committing and (wait or self._committing[0].done()):
            entry = self._committing.popleft().result()
            for name in ("images", "rejects"):
                counters.add(name, entry.counts[name])
            yield entry
        for images, microseconds in self._worker.describer.taken_latencies():
            self._inferences.inc(images)
            self._latency.update(microseconds)
        if after_all := self._worker.describer.taken_on_cpu():
            counters.add("jpegs_left_to_the_cpu", after_all)


def commit_described(
    root: str,
    stage: str,
    task: Task,
    described: list[Described],
    model: DescriptorModel,
    settings: ModelSettings,
) -> LedgerEntry:
    """Commit the descriptors, patches and rejects of a shard."""
    good: list[tuple[str, Description]] = []
    rejects = []
    for row, outcome in described:
        if isinstance(outcome, Description):
            if outcome.descriptor.any():
                good.append((row["image_id"], outcome))
                continue
            # Only a classical model gives zero: an image without a single feature.
            outcome = PhotoError(RejectReason.NO_DESCRIPTOR, "nothing in it to describe")
        rejects.append(reject_row(row["uri"], row["image_id"], STAGE, outcome))
    spec = model.spec
    others: list[FileRef] = []
    if settings.patch_size:
        assert isinstance(model, AggregatedModel)
        patches = [(image, one.patches) for image, one in good if one.patches is not None]
        table = patch_table(patches, settings.patch_size, model.stride, spec.name, spec.fingerprint)
        path = layout.in_cell(settings.patches, task.shard)
        # zstd would take 7 % off patches, in as long as all else that writes them.
        others.append(storage.commit_table(root, path, table, compression="none"))
    return commit_shard(
        root,
        stage,
        task,
        descriptor_table(
            [image for image, _ in good],
            [one.descriptor for _, one in good],
            tables.descriptors(spec.dimension, spec.name, spec.fingerprint),
        ),
        rejects,
        counts={"images": len(good), "rejects": len(rejects)},
        others=others,
    )
