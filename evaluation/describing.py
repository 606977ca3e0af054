"""Describing photographs on local disk with a descriptor model."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vladmap.console.quiet import hidden
from vladmap.models import DescriptorModel
from vladmap.models.memory import within_memory
from vladmap.photos.decoding.decode import decode_rgb
from vladmap.photos.files import read_photo
from vladmap.schemas.rejects import PhotoError

Pixels = NDArray[np.uint8]
Target = Callable[[int, int], tuple[int, int]]

_BATCH = {"cpu": 16, "cuda": 64}


@dataclass(frozen=True)
class RunSettings:
    """How a model runs: `threads` decode, and on a CPU `lanes` of them describe in parallel.

    The time measured for an image is only its own if there is one lane.
    """

    device: str = "cpu"
    precision: str = "float32"
    threads: int = 1
    lanes: int = 1


@dataclass(frozen=True, eq=False)
class Descriptors:
    """The descriptors `rows` (N, D) float32 of N photographs.

    Rows of photographs that cannot be read are zero; `unreadable` has the reasons. `milliseconds`
    is the model's time for one photograph, without reading and decoding.
    """

    rows: NDArray[np.float32]
    unreadable: dict[int, str]
    milliseconds: float


def read_pixels(path: Path, target: Target) -> Pixels:
    """A photograph, upright RGB, at the size that `target` gives. Raises PhotoError."""
    return decode_rgb(read_photo(path), target=target)


def describe(
    model: DescriptorModel, paths: Sequence[Path], settings: RunSettings, label: str
) -> Descriptors:
    """Describe photographs in order, decoding while the model computes.

    `label` is the label of the progress bar.
    """
    rows = np.zeros((len(paths), model.spec.dimension), np.float32)
    unreadable: dict[int, str] = {}
    lanes = settings.lanes if settings.device == "cpu" else 1
    limit = _BATCH[settings.device]
    seconds: list[float] = []

    def describe_batch(batch: list[tuple[int, Pixels]]) -> None:
        nonlocal limit
        started = time.perf_counter()
        descriptors, fits = within_memory(model.describe, [pixels for _, pixels in batch], limit)
        limit = min(limit, fits)
        seconds.append(time.perf_counter() - started)
        rows[[row for row, _ in batch]] = descriptors

    batch: list[tuple[int, Pixels]] = []
    running: deque[Future[None]] = deque()
    with ThreadPoolExecutor(lanes) as pool:
        for row, photo in read_ahead(paths, model.input_long_side, settings.threads, label):
            if isinstance(photo, PhotoError):
                unreadable[row] = str(photo)
                continue
            batch.append((row, photo))
            if len(batch) >= limit:
                running.append(pool.submit(describe_batch, batch))
                batch = []
                if len(running) > lanes:
                    running.popleft().result()
        if batch:
            running.append(pool.submit(describe_batch, batch))
        for each in running:
            each.result()
    readable = max(1, len(paths) - len(unreadable))
    return Descriptors(rows, unreadable, 1000 * sum(seconds) / readable)


def read_ahead(
    paths: Sequence[Path], target: Target, threads: int, label: str
) -> Iterator[tuple[int, Pixels | PhotoError]]:
    """Yield the positions and pixels of photographs, or their errors, in order.

    A few photographs are decoded ahead of the one that is yielded.
    """

    def read(path: Path) -> Pixels | PhotoError:
        try:
            return read_pixels(path, target)
        except PhotoError as error:
            return error

    waiting: deque[tuple[int, Future[Pixels | PhotoError]]] = deque()
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=len(paths), desc=label, unit=" images", disable=hidden()) as bar,
    ):
        for row, path in enumerate(paths):
            waiting.append((row, pool.submit(read, path)))
            if len(waiting) > 8 * threads:
                row, future = waiting.popleft()
                yield row, future.result()
                bar.update()
        for row, future in waiting:
            yield row, future.result()
            bar.update()
