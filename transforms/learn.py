"""Learn: the words, whitening and reduction of a model, from a sample of the collection.

The steps are those of `models.learning`, distributed over workers.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_entry
from vladmap.atlas.reading import How, ThreadReader, in_order
from vladmap.console import counter as progress
from vladmap.models import load_model
from vladmap.models.base import DescriptorModel
from vladmap.models.checkpoints.vocabulary import from_bytes, reduce, to_bytes
from vladmap.models.learning import (
    PART_IMAGES,
    LearningSettings,
    draw_patches,
    fit,
    images_with_words,
    weigh_words,
)
from vladmap.models.local import sample
from vladmap.models.memory import one_thread_a_call
from vladmap.models.registry import local_descriptors
from vladmap.models.whitening import Whitening
from vladmap.schemas.records import LedgerEntry, Task
from vladmap.transforms.counters import StageCounters
from vladmap.transforms.spread import Spread
from vladmap.transforms.whitening import FitWhitening

STAGE = "vocabulary"

Pixels = NDArray[np.uint8]

SamplePart = tuple[Task, int, list[dict[str, Any]]]
"""A task, the position of the part in the sample, and the part: rows of `images/`."""

Weights = tuple[Task, bytes]
"""A task, and the file of the vocabulary as far as it has been learnt."""


@dataclass(frozen=True)
class Reading:
    """How workers read photographs of the sample: the threads, and the largest size in pixels."""

    root: str
    threads: int
    max_pixels: int


@dataclass(eq=False)
class LearnVocabulary(beam.PTransform):
    """One task -> the model's weights in the atlas, learnt from a sample of its photographs.

    The task reads the `sample`, a table of rows of `images/`. The local descriptors of its first
    `word_images` cross one shuffle: a few hundred rows for each of a few hundred images, whatever
    the size of the collection. So do the descriptors of all of it where they are reduced to
    `dimension`, some two thousand. A whitening, where one is wanted, is fitted on ten times as many
    descriptors as it has dimensions, which no worker ever holds together.
    """

    stage: str
    reading: Reading
    settings: LearningSettings

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        settings, reading = self.settings, self.reading
        parts = tasks | "Sample" >> beam.FlatMap(_sample_parts, reading.root)
        parts |= "Over the workers" >> Spread(_number_of)
        weights = self._words(parts)
        # Before descriptors are reduced: patches are projected from their full dimension.
        if settings.patch_dimension:
            learnt = beam.pvalue.AsSingleton(weights)
            whitening = (
                parts
                | "Patches of sample" >> beam.ParDo(_DrawPatches(reading, settings), learnt)
                | "Fit whitening of patches"
                >> FitWhitening(settings.patch_dimension, settings.seed, "patches")
            )
            weights |= "Whiten patches" >> beam.Map(
                _put, "patch_whitening", beam.pvalue.AsSingleton(whitening)
            )
        if settings.whiten:
            learnt = beam.pvalue.AsSingleton(weights)
            whitening = (
                parts
                | "Describe sample" >> beam.ParDo(_Describe(reading, settings), learnt)
                | "Fit whitening" >> FitWhitening(settings.whiten, settings.seed)
            )
            weights |= "Whiten" >> beam.Map(_put, "whitening", beam.pvalue.AsSingleton(whitening))
        if settings.dimension:
            learnt = beam.pvalue.AsSingleton(weights)
            weights = (
                parts
                | "Describe to reduce" >> beam.ParDo(_DescribeInPlace(reading, settings), learnt)
                | "Gather descriptors" >> beam.GroupByKey()
                | "Reduce" >> beam.Map(_reduce, learnt, settings.dimension)
            )
        return weights | "Commit" >> beam.Map(_commit, reading.root, self.stage)

    def _words(self, parts: beam.PCollection) -> beam.PCollection:
        """Learn the vocabulary's words, and for a bag of words also their weights."""
        settings, reading = self.settings, self.reading
        weights = (
            parts
            | "First" >> beam.Filter(lambda part, end: part[1] < end, settings.word_images)
            | "Local descriptors" >> beam.ParDo(_DrawLocal(reading, settings))
            | "Gather" >> beam.GroupByKey()
            | "Fit" >> beam.Map(_fit, settings)
        )
        if settings.model != "bovw":
            return weights
        learnt = beam.pvalue.AsSingleton(weights)
        return (
            parts
            | "Words of sample" >> beam.ParDo(_CountWords(reading, settings), learnt)
            | "Gather counts" >> beam.GroupByKey()
            | "Weigh words" >> beam.Map(_weigh_words, learnt)
        )


_Placed = tuple[Task, int, NDArray[np.float32]]
"""A task, the position of a part of the sample, and the part's descriptors."""


def _fit(group: tuple[str, Iterable[_Placed]], settings: LearningSettings) -> Weights:
    task, rows = _in_order(group)
    vocabulary = fit(
        settings.model,
        settings.checkpoint,
        rows,
        clusters=settings.words,
        seed=settings.seed,
        device=settings.device,
    )
    return task, to_bytes(vocabulary)


def _reduce(group: tuple[str, Iterable[_Placed]], learnt: Weights, dimension: int) -> Weights:
    task, rows = _in_order(group)
    return task, to_bytes(reduce(from_bytes(learnt[1]), rows, dimension))


def _weigh_words(
    group: tuple[str, Iterable[tuple[Task, int, NDArray[np.int64]]]], learnt: Weights
) -> Weights:
    parts = list(group[1])
    counts = np.sum([part[2] for part in parts], axis=0)
    return parts[0][0], to_bytes(weigh_words(from_bytes(learnt[1]), counts))


def _put(weights: Weights, name: str, whitening: Whitening) -> Weights:
    fitted: dict[str, Any] = {name: whitening}
    vocabulary = dataclasses.replace(from_bytes(weights[1]), **fitted)
    return weights[0], to_bytes(vocabulary)


def _commit(weights: Weights, root: str, stage: str) -> LedgerEntry:
    task, data = weights
    return commit_entry(root, stage, task, [storage.commit_file(root, task.output, data, 1)])


def _in_order(group: tuple[str, Iterable[_Placed]]) -> tuple[Task, NDArray[np.float32]]:
    """Join the parts of a sample in their order, which a shuffle does not keep."""
    parts = sorted(group[1], key=lambda part: part[1])
    return parts[0][0], np.concatenate([part[2] for part in parts])


def _sample_parts(task: Task, root: str) -> Iterator[SamplePart]:
    rows = storage.read_table(_sample_path(root, task)).to_pylist()
    for start in range(0, len(rows), PART_IMAGES):
        yield task, start, rows[start : start + PART_IMAGES]


def _number_of(part: SamplePart) -> int:
    _, start, _ = part
    return start // PART_IMAGES


def _sample_path(root: str, task: Task) -> str:
    return storage.join(root, task.path("sample"))


class _DrawLocal(beam.DoFn):
    """Draws local descriptors from a part's images."""

    def __init__(self, reading: Reading, settings: LearningSettings) -> None:
        self._reading, self._settings = reading, settings

    def setup(self) -> None:
        one_thread_a_call()
        settings = self._settings
        self._features = local_descriptors(
            settings.model, settings.checkpoint, device=settings.device
        ).features

    def process(self, part: SamplePart) -> Iterator[tuple[str, _Placed]]:
        task, start, rows = part
        images = _pixels(rows, self._reading, self._features.input_size.target)
        # Without a readable photograph there are no rows: the fit reports that there are too few.
        settings = self._settings
        drawn = sample(self._features, images, settings.descriptors_an_image, settings.seed)
        yield task.shard, (task, start, drawn)
        StageCounters(STAGE).add("images", len(images))
        progress.advance(len(rows))


class _CountWords(beam.DoFn):
    """Counts for each word the images of a part that have it."""

    def __init__(self, reading: Reading, settings: LearningSettings) -> None:
        self._reading, self._settings = reading, settings

    def setup(self) -> None:
        self._features = local_descriptors(self._settings.model).features

    def process(
        self, part: SamplePart, learnt: Weights
    ) -> Iterator[tuple[str, tuple[Task, int, NDArray[np.int64]]]]:
        task, start, rows = part
        images = _pixels(rows, self._reading, self._features.input_size.target)
        local = self._features.extract(images)
        yield task.shard, (task, start, images_with_words(from_bytes(learnt[1]), local))


class _Describe(beam.DoFn):
    """Computes global descriptors of a part's images, by the model as far as it has been learnt."""

    _model: DescriptorModel | None = None

    def __init__(self, reading: Reading, settings: LearningSettings) -> None:
        self._reading, self._settings = reading, settings

    def process(self, part: SamplePart, learnt: Weights) -> Iterator[NDArray[np.float32]]:
        task, start, rows = part
        settings = self._settings
        if self._model is None:
            one_thread_a_call()
            self._model = load_model(settings.model, learnt[1], settings.device, settings.precision)
        images = _pixels(rows, self._reading, self._model.input_long_side)
        if images:
            yield self._describe(self._model, images, task, start)

    def _describe(
        self, model: DescriptorModel, images: list[Pixels], task: Task, start: int
    ) -> NDArray[np.float32]:
        return model.describe(images)


class _DescribeInPlace(_Describe):
    """Computes global descriptors, and emits them with the position of their part in the sample."""

    def process(  # type: ignore[override]
        self, part: SamplePart, learnt: Weights
    ) -> Iterator[tuple[str, _Placed]]:
        task, start, _ = part
        for rows in super().process(part, learnt):
            yield task.shard, (task, start, rows)


class _DrawPatches(_Describe):
    """Draws patches from a part's images."""

    _each = 0

    def _describe(
        self, model: DescriptorModel, images: list[Pixels], task: Task, start: int
    ) -> NDArray[np.float32]:
        settings = self._settings
        if not self._each:
            path = _sample_path(self._reading.root, task)
            count = storage.read_table(path, ["image_id"]).num_rows
            self._each = settings.patches_an_image(count)
        return draw_patches(model, images, settings.patch_size, self._each, settings.seed, start)


def _pixels(
    rows: list[dict[str, Any]], reading: Reading, target: Callable[[int, int], tuple[int, int]]
) -> list[Pixels]:
    """The pixels of the readable photographs in `rows`, at the size that `target` gives."""
    with contextlib.closing(
        ThreadReader(How(reading.max_pixels, target), reading.threads)
    ) as reader:
        photos = in_order(reader, rows, PART_IMAGES)
        return [photo.pixels for photo in photos if photo.pixels is not None]
