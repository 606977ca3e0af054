"""Describing photographs on local disk with a descriptor model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vladmap.atlas.photographs import Photo
from vladmap.atlas.reading import ThreadReader, in_order
from vladmap.console.quiet import hidden
from vladmap.models import DescriptorModel
from vladmap.models.aggregated import AggregatedModel
from vladmap.models.batches import BatchDescriber, Ticket
from vladmap.models.encoded import cuda_decoder
from vladmap.photos.decoding.bounds import MAX_PIXELS
from vladmap.photos.decoding.decode import decode_rgb
from vladmap.photos.decoding.encoded import encoded
from vladmap.photos.files import read_photo
from vladmap.schemas.rejects import PhotoError

Pixels = NDArray[np.uint8]
Target = Callable[[int, int], tuple[int, int]]

_BATCH = {"cpu": 16, "cuda": 64}


@dataclass(frozen=True)
class RunSettings:
    """How a model runs: `threads` decode, and on a CPU `lanes` of them describe in parallel.

    The time measured for an image is only its own if there is one lane. `decode` says who decodes
    JPEGs, `cpu` or `gpu`.
    """

    device: str = "cpu"
    precision: str = "float32"
    threads: int = 1
    lanes: int = 1
    decode: str = "cpu"


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


@dataclass(frozen=True)
class _OnDisk:
    """How photographs on local disk are read; `as_files` leaves JPEGs to a GPU's decoder."""

    target: Target
    as_files: bool = False

    def photo(self, row: dict[str, Any]) -> Photo:
        try:
            if self.as_files:
                data = read_photo(row["path"])
                if (file := encoded(data, MAX_PIXELS)) is not None:
                    return Photo(row, encoded=file)
            return Photo(row, read_pixels(row["path"], self.target))
        except PhotoError as error:
            return Photo(row, error=error)


def describe(
    model: DescriptorModel, paths: Sequence[Path], settings: RunSettings, label: str
) -> Descriptors:
    """Describe photographs in order, decoding while the model computes.

    `label` is the label of the progress bar.
    """
    decoder = None
    if settings.decode == "gpu" and isinstance(model, AggregatedModel):
        decoder = cuda_decoder(model.device)
    describer = BatchDescriber(model, _BATCH[settings.device], settings.lanes, decoder=decoder)
    rows = np.zeros((len(paths), model.spec.dimension), np.float32)
    tickets: dict[int, Ticket] = {}
    unreadable: dict[int, str] = {}
    how = _OnDisk(model.input_long_side, as_files=decoder is not None)
    with contextlib.closing(describer):
        for row, photo in enumerate(_read(how, paths, settings.threads, label)):
            picture = photo.pixels if photo.encoded is None else photo.encoded
            if picture is None:
                unreadable[row] = str(photo.error)
            else:
                tickets[row] = describer.add(picture)
        describer.flush()
        for row, ticket in tickets.items():
            outcome = ticket.result()
            if isinstance(outcome, PhotoError):
                unreadable[row] = str(outcome)
            else:
                rows[row] = outcome.descriptor
        microseconds = sum(each for _, each in describer.taken_latencies())
    readable = max(1, len(paths) - len(unreadable))
    return Descriptors(rows, unreadable, microseconds / 1000 / readable)


def read_ahead(
    paths: Sequence[Path], target: Target, threads: int, label: str
) -> Iterator[Pixels | None]:
    """The pixels of photographs in order, None for those that cannot be read.

    A few photographs are decoded ahead of the one that is yielded.
    """
    for photo in _read(_OnDisk(target), paths, threads, label):
        yield photo.pixels


def _read(how: _OnDisk, paths: Sequence[Path], threads: int, label: str) -> Iterator[Photo]:
    rows = [{"path": path} for path in paths]
    with contextlib.closing(ThreadReader(how, threads)) as reader:
        photos = in_order(reader, rows, 8 * threads)
        yield from tqdm(photos, label, len(rows), unit=" images", disable=hidden())
