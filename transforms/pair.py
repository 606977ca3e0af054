"""Pair: candidate pairs of images, which are worth matching.

From shards of `images/` and `descriptors/` to `pairs/`. Each image is paired with images of its own
shard and of earlier shards, in the order of their names: with the most similar near it by GPS, with
the most similar in the whole collection, and with those before it in its sequence. A pair of two
shards is thus proposed once, by the later one, and a growing collection adds pairs without changing
existing ones.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.utils.shared import Shared

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_shard
from vladmap.atlas.shard_lists import read_shard_list
from vladmap.atlas.task_files import read_task
from vladmap.console import counter as progress
from vladmap.retrieval.candidates import (
    GLOBAL,
    PLACE_COLUMNS,
    SEQUENCE,
    Gallery,
    known_candidates,
    merge_candidates,
    near_candidates,
)
from vladmap.retrieval.neighbours import (
    STOP_COLUMNS,
    Neighbour,
    Stop,
    sequence_neighbours,
    stops_in_sequences,
)
from vladmap.retrieval.ranking import (
    Collection,
    Pair,
    RankedCandidates,
    pairs_by_shard,
    rerank,
    search_on,
)
from vladmap.schemas.records import FileRef, LedgerEntry, Task
from vladmap.transforms.counters import StageCounters
from vladmap.transforms.index import load_index
from vladmap.transforms.rerank import RerankSettings, stored_evidence
from vladmap.weights.devices import gpu

STAGE = "pair"
_GALLERY_BYTES = 256 << 20
"""Galleries that a process holds, at most, and one more."""


@dataclass(frozen=True)
class PairSettings:
    """The settings of PairImages; pipeline.options explains those that are options.

    `stage` is the describe stage's name in the ledger, `index` the identity of the merged index.
    `shards` is a list (atlas.shard_lists) of every shard of `images/`, with the rows and identity
    of its descriptors; those that have any are in the index's order. The index is searched on
    `device`.
    """

    model: str
    near: int
    reach_m: float
    everywhere: int
    following: int
    gps_sigma_m: float
    stage: str
    index: str
    shards: FileRef
    rerank: RerankSettings
    device: str = "cpu"


@dataclass(eq=False)
class PairImages(beam.PTransform):
    """Tasks of image shards -> ledger entries of `pairs/`.

    A task reads its own shard, and those before it in the cells around. Sequences are joined over
    all shards: ids cross that shuffle, nothing else.
    """

    root: str
    settings: PairSettings

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        neighbours = (
            tasks.pipeline
            | "List of shards" >> beam.Create([self.settings.shards])
            | "Image shards" >> beam.FlatMap(_image_shards, self.root)
            | beam.Reshuffle()
            | "Read stops" >> beam.FlatMap(_stops, self.root)
            | "Same sequence" >> beam.GroupByKey()
            | "Neighbours" >> beam.FlatMap(_neighbours, self.settings.following)
        )
        return (
            {
                # Not the task with the names of all around it, where it can be read again.
                "task": tasks | beam.Map(lambda task: (task.shard, task.stored or task)),
                "neighbours": neighbours,
            }
            | beam.CoGroupByKey()
            | beam.ParDo(_Pair(self.root, self.settings, Shared()))
        )


# Stops and neighbours are shuffled as plain tuples, which are smaller when pickled.
_Values = tuple[Any, ...]


def _image_shards(listed: FileRef, root: str) -> Iterator[tuple[str, str]]:
    for each in read_shard_list(root, listed):
        yield each.shard, each.path


def _stops(shard_and_path: tuple[str, str], root: str) -> Iterator[tuple[str, _Values]]:
    shard, path = shard_and_path
    images = storage.read_table(storage.join(root, path), STOP_COLUMNS)
    for sequence, stop in stops_in_sequences(images, shard):
        yield sequence, tuple(stop)


def _neighbours(
    group: tuple[str, Iterable[_Values]], following: int
) -> Iterator[tuple[str, _Values]]:
    """Yield (shard, pair) for the stops of one sequence, by the shard the pair belongs to."""
    for shard, neighbour in sequence_neighbours(map(Stop._make, group[1]), following):
        yield shard, tuple(neighbour)


class _SharedCollection:
    """The global index and the galleries that were read last: one for the workers of a process."""

    def __init__(self, root: str, settings: PairSettings) -> None:
        described = [each for each in read_shard_list(root, settings.shards) if each.content]
        names, _, rows, contents = zip(*described, strict=True)
        index, ids = load_index(root, settings.model, settings.index)
        self.content = dict(zip(names, contents, strict=True))
        search = search_on(index, gpu(settings.device))
        self.collection = Collection(search, ids, names, np.cumsum(rows))
        self.galleries = _Galleries(root, settings, self.content)


class _Galleries:
    """Galleries by shard: a shard is asked for by all around it, and by those that resemble it."""

    def __init__(self, root: str, settings: PairSettings, shards: Container[str]) -> None:
        self._root, self._settings, self._shards = root, settings, shards
        self._held: OrderedDict[str, Gallery] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __getitem__(self, shard: str) -> Gallery:
        """The images of a shard that have descriptors; empty where the shard has none."""
        with self._lock:
            if shard in self._held:
                self._held.move_to_end(shard)
                return self._held[shard]
        gallery = self._read(shard)
        with self._lock:
            if shard not in self._held:
                self._held[shard] = gallery
                self._bytes += gallery.nbytes
            while self._bytes > _GALLERY_BYTES and len(self._held) > 1:
                _, last = self._held.popitem(last=False)
                self._bytes -= last.nbytes
        return gallery

    def _read(self, shard: str) -> Gallery:
        accuracy = self._settings.gps_sigma_m
        if shard not in self._shards:
            return Gallery.of(None, None, accuracy)
        descriptors, images = (
            storage.read_table(storage.join(self._root, path), columns)
            for path, columns in (
                (layout.descriptors(self._settings.model, shard), None),
                (layout.images(shard), PLACE_COLUMNS),
            )
        )
        return Gallery.of(descriptors, images, accuracy)


class _Pair(beam.DoFn):
    def __init__(self, root: str, settings: PairSettings, shared: Shared) -> None:
        self._root, self._settings, self._shared = root, settings, shared

    def setup(self) -> None:
        settings = self._settings
        self._box: _SharedCollection = self._shared.acquire(
            lambda: _SharedCollection(self._root, settings), tag=settings.index
        )
        self._evidence = stored_evidence(self._root, self._settings.rerank)

    def process(self, element: tuple[str, dict[str, list[Any]]]) -> Iterator[LedgerEntry]:
        _, parts = element
        for each in parts["task"]:
            task = each if isinstance(each, Task) else read_task(each, self._root)
            yield self._pair(task, map(Neighbour._make, sorted(parts["neighbours"])))

    def _pair(self, task: Task, neighbours: Iterable[Neighbour]) -> LedgerEntry:
        settings = self._settings
        galleries, content = self._box.galleries, self._box.content
        query = galleries[task.shard]
        ranked, searched, scores = self._in_collection(task.shard, query)
        pairs_of: dict[str, dict[str, list[Pair]]] = {GLOBAL: pairs_by_shard(ranked), SEQUENCE: {}}
        for image, other, shard in neighbours:
            pairs_of[SEQUENCE].setdefault(shard, []).append((image, other))
        around = {layout.shard_of(path) for path in task.paths(layout.DESCRIPTORS)}
        shards = around.union(searched, *pairs_of.values())
        candidates = []
        # Candidates by the shard they lie in.
        for shard in sorted(shards):
            gallery = galleries[shard]
            if shard in around:
                candidates.append(near_candidates(query, gallery, settings.reach_m, settings.near))
            for source, pairs in pairs_of.items():
                candidates.append(known_candidates(source, query, gallery, pairs.get(shard, [])))
        table = merge_candidates(candidates, settings.near, scores)
        StageCounters(STAGE).add("pairs", table.num_rows)
        progress.advance(len(query.ids))
        # An image without a descriptor has a place in a sequence, but its shard may not have one.
        inputs = {f"{settings.stage}/{shard}": content[shard] for shard in shards & content.keys()}
        if self._evidence is not None:
            inputs |= self._evidence.inputs(searched | {task.shard})
        return commit_shard(self._root, STAGE, task, table, inputs=inputs)

    def _in_collection(
        self, shard: str, query: Gallery
    ) -> tuple[list[RankedCandidates], set[str], dict[Pair, float]]:
        """The best candidates of each query in the collection, the shards searched, the scores.

        With re-ranking, more candidates are scored than are returned; without it there are no
        scores.
        """
        settings = self._settings
        collection = self._box.collection
        if self._evidence is None:
            ranked = collection.nearest(query, shard, settings.everywhere)
            return ranked, set(pairs_by_shard(ranked)), {}
        count = max(settings.everywhere, settings.rerank.candidates)
        ranked = collection.nearest(query, shard, count)
        score = functools.partial(self._evidence.scores, shard)
        best, scores = rerank(ranked, score, self._evidence.order, settings.everywhere)
        return best, set(pairs_by_shard(ranked)), scores
