"""Pair: candidate pairs of images, which are worth matching.

From shards of `images/` and `descriptors/` to `pairs/`. Each image is paired with images of its own
shard and of earlier shards, in the order of their names: with the most similar near it by GPS, with
the most similar in the whole collection, and with those before it in its sequence. A pair of two
shards is thus proposed once, by the later one, and a growing collection adds pairs without changing
existing ones.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.utils.shared import Shared

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_shard
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
)
from vladmap.schemas.records import LedgerEntry, Task
from vladmap.transforms.counters import StageCounters
from vladmap.transforms.index import load_index
from vladmap.transforms.rerank import RerankSettings, stored_evidence

STAGE = "pair"


@dataclass(frozen=True)
class PairSettings:
    """The settings of PairImages; pipeline.options explains those that are options.

    `stage` is the ledger of the descriptors, `index` the identity of the merged index, `shards`
    every shard of descriptors as (name, rows, identity) in the order of the index.
    """

    model: str
    near: int
    reach_m: float
    everywhere: int
    following: int
    gps_sigma_m: float
    stage: str
    index: str
    shards: tuple[tuple[str, int, str], ...]
    rerank: RerankSettings


@dataclass(eq=False)
class PairImages(beam.PTransform):
    """Tasks of image shards -> ledger entries of `pairs/`.

    A task reads its own shard, and those before it in
    the cells around. `stops` names the image shards whose sequences are joined: ids cross that
    shuffle, nothing else.
    """

    root: str
    settings: PairSettings
    stops: tuple[tuple[str, str], ...]

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        neighbours = (
            tasks.pipeline
            | "Image shards" >> beam.Create(list(self.stops))
            | "Read stops" >> beam.FlatMap(_stops, self.root)
            | "Same sequence" >> beam.GroupByKey()
            | "Neighbours" >> beam.FlatMap(_neighbours, self.settings.following)
        )
        return (
            {"task": tasks | beam.Map(lambda task: (task.shard, task)), "neighbours": neighbours}
            | beam.CoGroupByKey()
            | beam.ParDo(_Pair(self.root, self.settings, Shared()))
        )


# Stops and neighbours are shuffled as plain tuples, which are smaller when pickled.
_Values = tuple[Any, ...]


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
    """Holds the global index: the workers of a process share this object by a weak reference."""

    def __init__(self, root: str, settings: PairSettings) -> None:
        names, rows, _ = zip(*settings.shards, strict=True)
        index, ids = load_index(root, settings.model, settings.index)
        self.collection = Collection(index, ids, names, np.cumsum(rows))


class _Pair(beam.DoFn):
    def __init__(self, root: str, settings: PairSettings, shared: Shared) -> None:
        self._root, self._settings, self._shared = root, settings, shared

    def setup(self) -> None:
        self._content = {shard: content for shard, _, content in self._settings.shards}
        self._evidence = stored_evidence(self._root, self._settings.rerank)

    def process(self, element: tuple[str, dict[str, list[Any]]]) -> Iterator[LedgerEntry]:
        _, parts = element
        for task in parts["task"]:
            yield self._pair(task, map(Neighbour._make, sorted(parts["neighbours"])))

    def _pair(self, task: Task, neighbours: Iterable[Neighbour]) -> LedgerEntry:
        settings = self._settings
        query = self._gallery(task.shard)
        ranked, searched, scores = self._in_collection(task.shard, query)
        pairs_of: dict[str, dict[str, list[Pair]]] = {GLOBAL: pairs_by_shard(ranked), SEQUENCE: {}}
        for image, other, shard in neighbours:
            pairs_of[SEQUENCE].setdefault(shard, []).append((image, other))
        around = {layout.shard_of(path) for path in task.paths(layout.DESCRIPTORS)}
        shards = around.union(searched, *pairs_of.values())
        candidates = []
        # Candidates are looked for in one shard after another: two galleries are in memory.
        for shard in sorted(shards):
            gallery = query if shard == task.shard else self._gallery(shard)
            if shard in around:
                candidates.append(near_candidates(query, gallery, settings.reach_m, settings.near))
            for source, pairs in pairs_of.items():
                candidates.append(known_candidates(source, query, gallery, pairs.get(shard, [])))
        table = merge_candidates(candidates, settings.near, scores)
        StageCounters(STAGE).add("pairs", table.num_rows)
        progress.advance(len(query.ids))
        # A shard that only sequences name may have no descriptors, and then is no input.
        inputs = {
            f"{settings.stage}/{shard}": self._content[shard]
            for shard in shards & self._content.keys()
        }
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
        box = self._shared.acquire(
            lambda: _SharedCollection(self._root, settings), tag=settings.index
        )
        if self._evidence is None:
            ranked = box.collection.nearest(query, shard, settings.everywhere)
            return ranked, set(pairs_by_shard(ranked)), {}
        count = max(settings.everywhere, settings.rerank.candidates)
        ranked = box.collection.nearest(query, shard, count)
        score = functools.partial(self._evidence.scores, shard)
        best, scores = rerank(ranked, score, self._evidence.order, settings.everywhere)
        return best, set(pairs_by_shard(ranked)), scores

    def _gallery(self, shard: str) -> Gallery:
        """The images of a shard that have descriptors; empty where the shard has none."""
        accuracy = self._settings.gps_sigma_m
        if shard not in self._content:
            return Gallery.of(None, None, accuracy)
        descriptors, images = (
            storage.read_table(storage.join(self._root, path), columns)
            for path, columns in (
                (layout.descriptors(self._settings.model, shard), None),
                (layout.images(shard), PLACE_COLUMNS),
            )
        )
        return Gallery.of(descriptors, images, accuracy)
