"""What can be proved of the GPU path without one, in small; each proof fails as an error."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.gpu.describing import Bench, _rows
from benchmarks.gpu.inputs import pictures
from vladmap.atlas.reading import How, ProcessReader
from vladmap.models.base import DescriptorModel, Floats, ModelSpec, Pixels, resize
from vladmap.models.batches import BatchDescriber
from vladmap.models.computing import Batch, Computer, Description
from vladmap.transforms.shard_stream import ShardStream
from vladmap.weights.preprocessing import InputSize


class ProofFailed(Exception):
    """What was to be shown is not so."""


def batches(bench: Bench) -> None:
    """Batches cross shards, threads outlive them, and bytes do not depend on either."""
    model = bench.model("netvlad-lite", "float32", "cpu")
    target = model.input_long_side(*bench.scale.size)
    images = [resize(picture, target) for picture in pictures(24, bench.scale.size)]
    expected = model.describe(images)
    before = threading.active_count()
    describer = BatchDescriber(model, 4, 2)
    tickets = [describer.add(image) for image in images]  # as eight shards of three bring them
    describer.flush()
    found = np.stack([ticket.result().descriptor for ticket in tickets])  # type: ignore[union-attr]
    made, threads = describer.taken_latencies(), threading.active_count() - before
    describer.close()
    full = all(count == 4 for count, _ in made)
    same = found.tobytes() == expected.tobytes()
    bench.table.row("8 shards of 3 images", f"{len(made)} batches", "all of 4" if full else "")
    bench.table.row("threads that computed them all", str(threads), "at most 2")
    bench.table.row("bytes are those of one call", "yes" if same else "**no**")
    if not (full and same and threads <= 2):
        raise ProofFailed("batches do not cross shards, threads do not stay, or bytes differ")


class _Nothing(DescriptorModel):
    """A model that is never asked."""

    def __init__(self) -> None:
        self.spec = ModelSpec("nothing", 512, (), InputSize(320, 448), "nothing")

    def describe(self, images: Sequence[Pixels]) -> Floats:
        raise NotImplementedError


class _NoTime(Computer):
    """Takes files as a GPU does, copies them as a decoder wants them, and is done."""

    def _describe(self, batch: Batch) -> None:
        batch.started = time.monotonic()
        for picture in batch.encoded.values():
            torch.from_numpy(picture.owned().data)
        row = Description(np.full(512, 512**-0.5, np.float32), None)
        self._end(batch, [row] * batch.count)


def own_time(bench: Bench) -> None:
    """Processor time of the process that holds the lock, an image, when others read and decode.

    Files of 640 x 480 pass through the reading processes, the batches and the stream of shards; a
    network and a decoder that take no time stand for the GPU's. No GPU gets more images than this.
    """
    count = 1024 if bench.on_gpu else 384
    rows = _rows(bench.root / "own", count, (640, 480))
    model = _Nothing()
    describer = BatchDescriber(model, 64, 1)
    describer.close()
    describer._computer = _NoTime(model, 64, 1)
    reader = ProcessReader(How(10**9, model.spec.input_size.target, True), 2, 256, 1 << 20)
    stream: ShardStream[int] = ShardStream(reader, describer, 192)
    for future in [reader.submit(rows[:1]) for _ in range(8)]:  # all have started
        reader.give_back(future.result())
    processor, started, done = time.process_time(), time.perf_counter(), 0
    for number, at in enumerate(range(0, count, 16)):
        done += sum(len(each) for _, each in stream.feed(number, rows[at : at + 16]))
    done += sum(len(each) for _, each in stream.finish())
    processor = (time.process_time() - processor) / count
    seconds = time.perf_counter() - started
    describer.close()
    reader.close()
    if done != count:
        raise ProofFailed(f"{done} of {count} images came back")
    bench.table.row(
        "this process, of its own",
        f"{1e6 * processor:.0f} us an image",
        f"at most {1 / processor:,.0f} images/s in one process; 2 processes that read files: "
        f"{count / seconds:,.0f}",
    )
