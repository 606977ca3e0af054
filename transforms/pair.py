"""Pair: which images are worth matching.

Each image is paired with images that came before it, in the order of the shards' names: by
descriptor among those within reach of its GPS, by descriptor in the whole collection, and along
its sequence. Every unordered pair is thus found once, by its later image, and a collection that
grows adds pairs without touching those it has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.utils.shared import Shared
from numpy.typing import NDArray

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_shard
from vladmap.console import counter as progress
from vladmap.retrieval.candidates import (
    GLOBAL,
    SEQUENCE,
    Gallery,
    known_candidates,
    merge_candidates,
    near_candidates,
)
from vladmap.retrieval.index import search
from vladmap.schemas.records import LedgerEntry, Task, shard_cell
from vladmap.transforms.counters import StageCounters
from vladmap.transforms.describe import descriptor_matrix, numbers_of
from vladmap.transforms.index import load_index
from vladmap.transforms.rerank import RerankSettings, evidence

STAGE = "pair"

STOPS = ["image_id", "sequence_id", "sequence_index", "duplicate_of"]
"""Columns of `images/` that say which images follow each other."""

_PLACE = ["image_id", "latitude", "longitude", "gps_accuracy_m"]


@dataclass(frozen=True)
class PairSettings:
    """Where candidates are looked for; see pipeline.options for the meanings.

    `stage` is the describe stage's name in the ledger, `index` the identity of the merged index,
    `shards` every descriptor shard as (name, rows, identity) in the index's order.
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

    A task reads its own shard (`images/<shard>`, `descriptors/<shard>`), and those before it in
    the cells around. `stops` names the image shards whose sequences are joined: ids cross that
    shuffle, nothing else.
    """

    root: str
    settings: PairSettings
    stops: tuple[tuple[str, str], ...]

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        behind = (
            tasks.pipeline
            | "Image shards" >> beam.Create(list(self.stops))
            | "Read stops" >> beam.FlatMap(_stops, self.root)
            | "Same sequence" >> beam.GroupByKey()
            | "Predecessors" >> beam.FlatMap(_predecessors, self.settings.following)
        )
        return (
            {"task": tasks | beam.Map(lambda task: (task.shard, task)), "behind": behind}
            | beam.CoGroupByKey()
            | beam.ParDo(_Pair(self.root, self.settings, Shared()))
        )


def _stops(shard_and_path: tuple[str, str], root: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    shard, path = shard_and_path
    table = storage.read_table(storage.join(root, path), STOPS)
    for row in table.filter(pc.is_null(table["duplicate_of"])).to_pylist():
        if row["sequence_id"] is not None:
            yield row["sequence_id"], (row["sequence_index"], shard, row["image_id"])


def _predecessors(
    group: tuple[str, Iterable[tuple[int, str, str]]], following: int
) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """(later shard, (its image, the other image, the other shard)) of neighbours in a sequence."""
    stops = sorted(group[1])
    for place, (_, shard, image) in enumerate(stops):
        for _, other_shard, other in stops[max(0, place - following) : place]:
            if shard >= other_shard:
                yield shard, (image, other, other_shard)
            else:
                yield other_shard, (other, image, shard)


def sequence_digests(stops: pa.Table, following: int) -> dict[str, str]:
    """Identity of the neighbours in sequences that `_predecessors` gives each shard, by shard.

    `stops` has the columns STOPS and `shard` of all images. A shard's identity changes with its own
    neighbours alone: photographs added behind a drive leave that of earlier shards as it is.
    """
    rows = stops.filter(
        pc.and_(pc.is_null(stops["duplicate_of"]), pc.is_valid(stops["sequence_id"]))
    ).sort_by(
        [(name, "ascending") for name in ("sequence_id", "sequence_index", "shard", "image_id")]
    )
    ids = np.array(rows["image_id"].to_pylist(), "S32")
    _, sequence = np.unique(rows["sequence_id"].to_numpy().astype(str), return_inverse=True)
    names, shard = np.unique(rows["shard"].to_numpy().astype(str), return_inverse=True)
    parts = []
    for gap in range(1, min(following, len(ids) - 1) + 1):
        near = np.flatnonzero(sequence[gap:] == sequence[:-gap])
        if len(near):
            owner = np.maximum(shard[near + gap], shard[near])
            ends = np.sort(np.stack([ids[near + gap], ids[near]]), axis=0)
            parts.append((owner, *ends))
    if not parts:
        return {}
    owner, a, b = map(np.concatenate, zip(*parts, strict=True))
    order = np.lexsort((b, a, owner))
    owner, pairs = owner[order], np.stack([a[order], b[order]], axis=1)
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    return {
        str(names[owner[start]]): storage.digest(part.tobytes())
        for start, part in zip(starts, np.split(pairs, starts[1:]), strict=True)
    }


class _Index:
    """The global index in a box that a process's workers share."""

    def __init__(self, root: str, settings: PairSettings) -> None:
        self.index = load_index(root, settings.model, settings.index)


class _Pair(beam.DoFn):
    def __init__(self, root: str, settings: PairSettings, shared: Shared) -> None:
        self._root, self._settings, self._shared = root, settings, shared

    def setup(self) -> None:
        names, rows, content = zip(*self._settings.shards, strict=True)
        self._names, self._content = list(names), dict(zip(names, content, strict=True))
        self._ends = np.cumsum(rows)
        self._evidence = evidence(self._root, self._settings.rerank)

    def process(self, element: tuple[str, dict[str, list[Any]]]) -> Iterator[LedgerEntry]:
        _, found = element
        for task in found["task"]:
            yield self._pair(task, sorted(found["behind"]))

    def _pair(self, task: Task, behind: list[tuple[str, str, str]]) -> LedgerEntry:
        settings = self._settings
        query = self._gallery(task.shard)
        # Candidates by the shard they lie in: two galleries are in memory at a time.
        known, scores = self._everywhere(task.shard, query)
        looked_at = set(known)
        for image, other, other_shard in behind:
            known[other_shard].append((SEQUENCE, image, other))
        around = {role.partition("/")[2] for role, _ in task.reads}
        found = []
        for shard in sorted(around | set(known)):
            gallery = query if shard == task.shard else self._gallery(shard)
            if shard in around:
                found.append(near_candidates(query, gallery, settings.reach_m, settings.near))
            for source in (GLOBAL, SEQUENCE):
                pairs = [(a, b) for kind, a, b in known[shard] if kind == source]
                found.append(known_candidates(source, query, gallery, pairs))
        table = merge_candidates(found, settings.near, scores)
        StageCounters(STAGE).add("pairs", table.num_rows)
        progress.advance(len(query.ids))
        # An image without a descriptor has a place in a sequence, but its shard may not have one.
        inputs = {
            f"{settings.stage}/{shard}": self._content[shard]
            for shard in known
            if shard in self._content
        }
        if self._evidence is not None:
            inputs |= self._evidence.inputs(looked_at | {task.shard})
        return commit_shard(self._root, STAGE, task, table, inputs=inputs)

    def _everywhere(
        self, shard: str, query: Gallery
    ) -> tuple[defaultdict[str, list[tuple[str, str, str]]], dict[tuple[str, str], float]]:
        """Each query's best in the collection up to its own shard, by the shard they lie in.

        Where they are re-ranked, more are looked at, and their scores come with them.
        """
        settings = self._settings
        box = self._shared.acquire(lambda: _Index(self._root, settings), tag=settings.index)
        index, ids = box.index
        end = int(self._ends[self._names.index(shard)])
        wanted = max(settings.everywhere, settings.rerank.candidates if self._evidence else 0)
        similarity, rows = search(index, query.vectors, wanted + 1, below=end)
        hits: dict[str, list[int]] = {}
        alike: dict[str, NDArray[np.float32]] = {}
        for image, found, cosines in zip(query.ids.tolist(), rows, similarity, strict=True):
            others = np.flatnonzero([row >= 0 and ids[row] != image for row in found])[:wanted]
            hits[image], alike[image] = found[others].tolist(), cosines[others]
        known: defaultdict[str, list[tuple[str, str, str]]] = defaultdict(list)
        for image, candidates in hits.items():
            for row in candidates:
                place = int(np.searchsorted(self._ends, row, side="right"))
                known[self._names[place]].append((GLOBAL, image, ids[row]))
        if self._evidence is None:
            return known, {}
        scores: dict[tuple[str, str], float] = {}
        for other, members in sorted(known.items()):
            pairs = [(image, candidate) for _, image, candidate in members]
            scores |= zip(pairs, self._evidence.scores(shard, other, pairs), strict=True)
        kept = set()
        for image, candidates in hits.items():
            found = np.array([scores[image, ids[row]] for row in candidates])
            best = self._evidence.order(found, alike[image])[: settings.everywhere]
            kept |= {(image, ids[candidates[place]]) for place in best}
        # An emptied list still says that the shard was looked at.
        for members in known.values():
            members[:] = [member for member in members if member[1:] in kept]
        return known, {pair: scores[pair] for pair in kept}

    def _gallery(self, shard: str) -> Gallery:
        """The described images of a shard; empty for a shard without descriptors."""
        cell = shard_cell(shard)
        if shard not in self._content:
            return gallery(None, None, self._settings.gps_sigma_m)
        descriptors, images = (
            storage.read_table(
                storage.join(self._root, f"{folder}/cell={cell}/{shard}.parquet"), columns
            )
            for folder, columns in (
                (f"descriptors/{self._settings.model}", None),
                ("images", _PLACE),
            )
        )
        return gallery(descriptors, images, self._settings.gps_sigma_m)


def gallery(descriptors: pa.Table | None, images: pa.Table | None, gps_sigma_m: float) -> Gallery:
    """Descriptors with their images' positions; `gps_sigma_m` where a photograph states none."""
    if descriptors is None or images is None:
        none = np.zeros(0)
        return Gallery(np.zeros(0, "U32"), np.zeros((0, 0), np.float32), none, none, none)
    ids = descriptors["image_id"].to_numpy()
    latitude, longitude, accuracy = numbers_of(
        descriptors, images, ("latitude", "longitude", "gps_accuracy_m")
    )
    return Gallery(
        ids.astype(str),
        descriptor_matrix(descriptors),
        latitude,
        longitude,
        np.where(np.isnan(accuracy), gps_sigma_m, accuracy),
    )
