"""Photographs on local disk through a descriptor model, which learns its words first if it must."""

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
from vladmap.models import DescriptorModel, load_model
from vladmap.models.aggregated import AggregatedModel
from vladmap.models.checkpoints.vocabulary import Vocabulary, reduce, to_bytes, whiten_patches
from vladmap.models.kinds import DEFAULT_DIMENSION, SHIPPED
from vladmap.models.learning import fit, images_with_words, weigh_words
from vladmap.models.local import sample
from vladmap.models.memory import one_thread_a_call, within_memory
from vladmap.models.registry import (
    default_clusters,
    is_complete,
    local_descriptors,
    patch_dimension,
    shipped_weights,
)
from vladmap.models.whitening import IMAGES_PER_DIMENSION, IMAGES_PER_REDUCED
from vladmap.photos.decode import decode_rgb
from vladmap.photos.files import read_photo
from vladmap.schemas.rejects import PhotoError, UserError

Pixels = NDArray[np.uint8]
Target = Callable[[int, int], tuple[int, int]]

LEARNING_IMAGES = 512
LOCAL_DESCRIPTORS_PER_IMAGE = 200

_BATCH = {"cpu": 16, "cuda": 64}


@dataclass(frozen=True)
class ModelChoice:
    """Which model, how it runs, and whether its words are learnt although its file has some.

    `dimension` is what descriptors are reduced to where words are learnt: None for as many numbers
    as suit the model, 0 for no reduction.
    `threads` decode; `lanes` of them describe beside each other on a CPU, and only with one is the
    time of an image its own. `patch_size` in cells and `patch_dimension` are of the patches it
    re-ranks by; 0 for none.
    """

    name: str
    checkpoint: Path | None = None
    learn: bool = False
    device: str = "cpu"
    precision: str = "float32"
    threads: int = 1
    lanes: int = 1
    seed: int = 0
    patch_size: int = 0
    patch_dimension: int = 0
    dimension: int | None = None


@dataclass(frozen=True, eq=False)
class Described:
    """`rows` (N, D) float32 of N photographs, zero where `unreadable` says why there is none.

    `milliseconds` is the model's time for one of them, without reading and decoding.
    """

    rows: NDArray[np.float32]
    unreadable: dict[int, str]
    milliseconds: float


def read_pixels(path: Path, target: Target) -> Pixels:
    """A photograph, upright RGB at the size `target` wants. Raises PhotoError."""
    return decode_rgb(read_photo(path), target=target)


def described(
    model: DescriptorModel, paths: Sequence[Path], choice: ModelChoice, label: str
) -> Described:
    """Describe photographs in order, decoding while the model computes."""
    rows = np.zeros((len(paths), model.spec.dimension), np.float32)
    unreadable: dict[int, str] = {}
    lanes = choice.lanes if choice.device == "cpu" else 1
    limit = _BATCH[choice.device]
    seconds: list[float] = []

    def describe(batch: list[tuple[int, Pixels]]) -> None:
        nonlocal limit
        started = time.perf_counter()
        found, fits = within_memory(model.describe, [pixels for _, pixels in batch], limit)
        limit = min(limit, fits)
        seconds.append(time.perf_counter() - started)
        rows[[row for row, _ in batch]] = found

    photos = _photos(paths, model.input_long_side, choice.threads, label)
    batch: list[tuple[int, Pixels]] = []
    running: deque[Future[None]] = deque()
    with ThreadPoolExecutor(lanes) as pool:
        for row, photo in photos:
            if isinstance(photo, PhotoError):
                unreadable[row] = str(photo)
                continue
            batch.append((row, photo))
            if len(batch) >= limit:
                running.append(pool.submit(describe, batch))
                batch = []
                if len(running) > lanes:
                    running.popleft().result()
        if batch:
            running.append(pool.submit(describe, batch))
        for each in running:
            each.result()
    readable = max(1, len(paths) - len(unreadable))
    return Described(rows, unreadable, 1000 * sum(seconds) / readable)


def ready(choice: ModelChoice, database: Sequence[Path]) -> tuple[DescriptorModel, int]:
    """The model, and the number of photographs of the database that it learnt from.

    That is 0 for a checkpoint that is complete, and for weights that ship with vladmap. Otherwise
    centres, word weights, the reduction and the whitening of patches are learnt from the database,
    as a build learns them from a collection. Raises UserError where the model needs a file that is
    not given.
    """
    if choice.device == "cpu":
        one_thread_a_call()
    name, checkpoint = choice.name, _read(choice.checkpoint)
    complete = not choice.learn and is_complete(name, checkpoint)
    if checkpoint is None and not choice.learn:
        checkpoint = shipped_weights(name)
        complete = checkpoint is not None
    elif choice.learn and name == "gem":
        raise UserError("--learn: there is nothing to learn for gem")
    if complete:
        if choice.patch_size:
            patch_dimension(name, checkpoint)
        return load_model(name, checkpoint, choice.device, choice.precision), 0
    if checkpoint is None and name not in SHIPPED:
        local_descriptors(name)  # says what the model needs
    paths = _evenly(database, LEARNING_IMAGES)
    vocabulary = _learnt(choice, checkpoint, paths)
    model = load_model(name, to_bytes(vocabulary), choice.device, choice.precision)
    # Before descriptors are shortened: patches are projected from their full length.
    if choice.patch_size:
        vocabulary = whiten_patches(
            vocabulary, _patch_sample(model, choice, paths), choice.patch_dimension
        )
        model = load_model(name, to_bytes(vocabulary), choice.device, choice.precision)
    dimension = DEFAULT_DIMENSION[name] if choice.dimension is None else choice.dimension
    if dimension:
        shown = _evenly(database, max(LEARNING_IMAGES, IMAGES_PER_REDUCED * dimension))
        found = described(model, shown, choice, "learn to reduce").rows
        vocabulary = reduce(vocabulary, found[found.any(axis=1)], dimension)
        model = load_model(name, to_bytes(vocabulary), choice.device, choice.precision)
    return model, len(paths)


def _evenly(paths: Sequence[Path], count: int) -> list[Path]:
    """At most `count` of the paths, at even distances."""
    rows = np.linspace(0, len(paths) - 1, min(count, len(paths)))
    return [paths[row] for row in np.unique(rows.round().astype(int))]


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"checkpoint {path}: {error.strerror}") from error


def _learnt(choice: ModelChoice, checkpoint: bytes | None, paths: Sequence[Path]) -> Vocabulary:
    features = local_descriptors(choice.name, checkpoint, choice.device).features
    target = features.input_size.target
    drawn = [
        sample(features, images, LOCAL_DESCRIPTORS_PER_IMAGE, choice.seed)
        for images in _batches(paths, target, choice, "learn words")
    ]
    if not drawn:
        raise UserError("no photograph of the database can be read: there is nothing to learn from")
    reduced = choice.dimension != 0 and not choice.patch_size
    clusters = default_clusters(choice.name, reduced)
    vocabulary = fit(choice.name, checkpoint, np.concatenate(drawn), clusters, choice.seed)
    if choice.name != "bovw":
        return vocabulary
    counts = [
        images_with_words(vocabulary, features.extract(images))
        for images in _batches(paths, target, choice, "weigh words")
    ]
    return weigh_words(vocabulary, np.sum(counts, axis=0))


def _patch_sample(
    model: DescriptorModel, choice: ModelChoice, paths: Sequence[Path]
) -> NDArray[np.float32]:
    """As many patches of each photograph, drawn by seed, as a whitening needs of them all."""
    assert isinstance(model, AggregatedModel)
    # A fifth more than needed: some photographs cannot be read.
    each = -(-IMAGES_PER_DIMENSION * 6 * choice.patch_dimension // (5 * len(paths)))
    generator = np.random.default_rng(choice.seed)
    drawn = []
    for images in _batches(paths, model.input_long_side, choice, "learn patches"):
        for _, patches in model.describe_each(images, (choice.patch_size,)):
            found = patches.descriptors[0][0]
            drawn.append(found[np.sort(generator.permutation(len(found))[:each])])
    return np.concatenate(drawn)


def _batches(
    paths: Sequence[Path], target: Target, choice: ModelChoice, label: str
) -> Iterator[list[Pixels]]:
    """The photographs that can be read, some at a time."""
    images: list[Pixels] = []
    for _, photo in _photos(paths, target, choice.threads, label):
        if not isinstance(photo, PhotoError):
            images.append(photo)
        if len(images) == _BATCH[choice.device]:
            yield images
            images = []
    if images:
        yield images


def _photos(
    paths: Sequence[Path], target: Target, threads: int, label: str
) -> Iterator[tuple[int, Pixels | PhotoError]]:
    """Positions and pixels, or why there are none, in order; a few are decoded ahead."""

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
