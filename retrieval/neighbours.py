"""Pairs of images that follow each other in a sequence, grouped by shard.

A sequence may cross shards. A pair belongs to the later of its two images' shards, in the order of
their names, so that a growing collection adds pairs without changing those of older shards.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

STOP_COLUMNS = ["image_id", "sequence_id", "sequence_index", "duplicate_of"]
"""Columns of `images/` that say which images follow each other."""


class Stop(NamedTuple):
    """An image's place in its sequence, and the shard of `images/` that it lies in."""

    sequence_index: int
    shard: str
    image_id: str


class Neighbour(NamedTuple):
    """A pair of images of one sequence: `image_id` lies in the shard that the pair belongs to."""

    image_id: str
    other: str
    other_shard: str


def stops_in_sequences(images: pa.Table, shard: str) -> Iterator[tuple[str, Stop]]:
    """(sequence_id, stop) of each image of a shard (STOP_COLUMNS) that is no exact duplicate."""
    for row in images.filter(_in_sequence(images)).to_pylist():
        yield row["sequence_id"], Stop(row["sequence_index"], shard, row["image_id"])


def sequence_neighbours(stops: Iterable[Stop], following: int) -> Iterator[tuple[str, Neighbour]]:
    """(shard, pair) of each stop of one sequence and up to `following` stops before it."""
    ordered = sorted(stops)
    for place, stop in enumerate(ordered):
        for before in ordered[max(0, place - following) : place]:
            later, earlier = (stop, before) if stop.shard >= before.shard else (before, stop)
            yield later.shard, Neighbour(later.image_id, earlier.image_id, earlier.shard)


def neighbour_ids(
    stops: pa.Table, shards: Sequence[str], following: int
) -> Iterator[tuple[str, NDArray[np.bytes_]]]:
    """(shard, its (n, 2) ids, sorted) of the pairs that `sequence_neighbours` gives each shard.

    `stops` has STOP_COLUMNS of all images, and `shard`, the place of the image's shard in `shards`,
    which ascend. A shard's array changes with its own pairs alone: photographs added behind a drive
    leave those of earlier shards as they are. Some 150 bytes an image are in memory.
    """
    rows = stops.filter(_in_sequence(stops)).sort_by(
        [(name, "ascending") for name in ("sequence_id", "sequence_index", "shard", "image_id")]
    )
    ids = np.array(rows["image_id"].to_pylist(), "S32")
    sequence = pc.dictionary_encode(rows["sequence_id"].combine_chunks()).indices.to_numpy()
    shard = rows["shard"].to_numpy()
    first, gaps, owners = [], [], []
    for gap in range(1, min(following, len(ids) - 1) + 1):
        near = np.flatnonzero(sequence[gap:] == sequence[:-gap]).astype(np.int32)
        first.append(near)
        gaps.append(np.full(len(near), gap, np.int8))
        owners.append(np.maximum(shard[near + gap], shard[near]))
    if not first:
        return
    start, gap_of = np.concatenate(first), np.concatenate(gaps)
    owner: NDArray[np.int32] = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    bounds = np.flatnonzero(np.diff(owner[order], prepend=-1, append=len(shards)))
    for begin, end in itertools.pairwise(bounds.tolist()):
        own = order[begin:end]
        ends = np.sort(np.stack([ids[start[own] + gap_of[own]], ids[start[own]]]), axis=0)
        pairs = ends[:, np.lexsort((ends[1], ends[0]))].T
        yield shards[owner[own[0]]], np.ascontiguousarray(pairs)


def _in_sequence(images: pa.Table) -> pa.ChunkedArray:
    return pc.and_(pc.is_null(images["duplicate_of"]), pc.is_valid(images["sequence_id"]))
