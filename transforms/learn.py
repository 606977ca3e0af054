"""Learn: a model's words, whitening and reduction, from a sample of a collection's photographs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_entry
from vladmap.atlas.photographs import load_ahead
from vladmap.console import counter as progress
from vladmap.models import load_model
from vladmap.models.aggregated import AggregatedModel
from vladmap.models.base import DescriptorModel
from vladmap.models.checkpoints.vocabulary import from_bytes, reduce, to_bytes
from vladmap.models.learning import fit, images_with_words, weigh_words
from vladmap.models.local import sample
from vladmap.models.memory import one_thread_a_call
from vladmap.models.registry import local_descriptors
from vladmap.models.whitening import Whitening
from vladmap.schemas.records import LedgerEntry, Task
from vladmap.transforms.describe import ModelSettings
from vladmap.transforms.whitening import FitWhitening


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
        # No rows where no photograph could be read: the fit says that there are too few.
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
