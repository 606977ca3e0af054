"""Neighbours in sequences have an identity that changes when they do, and only then."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vladmap.retrieval.neighbours import STOP_COLUMNS, Stop, neighbour_ids, sequence_neighbours

Image = tuple[str, str, int, str]  # image, sequence, place in it, shard


def by_shard(images: list[Image], following: int) -> dict[str, set[Any]]:
    """The pairs that the shuffle of the pair stage gives each shard."""
    sequences: dict[str, list[Stop]] = defaultdict(list)
    for image, sequence, index, shard in images:
        sequences[sequence].append(Stop(index, shard, image))
    pairs: dict[str, set[Any]] = defaultdict(set)
    for stops in sequences.values():
        for shard, pair in sequence_neighbours(stops, following):
            pairs[shard].add(frozenset(pair[:2]))
    return pairs


def ids(images: list[Image], following: int) -> dict[str, bytes]:
    """What the identity of each shard's neighbours is the digest of."""
    rows = [
        dict(zip([*STOP_COLUMNS[:3], "shard", "duplicate_of"], (*image, None), strict=True))
        for image in images
    ]
    shards = sorted({image[3] for image in images})
    rows = [{**row, "shard": shards.index(row["shard"])} for row in rows]
    schema = pa.schema(
        [("image_id", pa.string()), ("sequence_id", pa.string()), ("sequence_index", pa.int32()),
         ("duplicate_of", pa.string()), ("shard", pa.int32())]
    )  # fmt: skip
    pairs = neighbour_ids(pa.Table.from_pylist(rows, schema), shards, following)
    return {shard: array.tobytes() for shard, array in pairs}


@pytest.mark.parametrize("following", [1, 3])
def test_a_shards_identity_changes_with_its_own_neighbours_and_no_others(following: int) -> None:
    """Issue 19, 12: against the pairs themselves, over random drives and random corrections."""
    random = np.random.default_rng(0)
    names = [f"{n:032x}" for n in range(60)]
    shards = [f"s{n}" for n in random.integers(0, 7, 60)]
    seen = 0
    for _ in range(60):
        order, cuts = random.permutation(50), random.integers(1, 4)
        old = [
            (names[n], f"drive{place % cuts}", place, shards[n]) for place, n in enumerate(order)
        ]
        new = list(old)
        first, second = random.integers(0, 50, 2)
        match random.integers(0, 4):
            case 0:  # two photographs change places
                new[first] = (*old[first][:1], *old[second][1:3], old[first][3])
                new[second] = (*old[second][:1], *old[first][1:3], old[second][3])
            case 1:  # one leaves
                new.pop(first)
            case 2:  # one goes on a drive of its own
                new[first] = (old[first][0], "alone", 0, old[first][3])
            case 3:  # some are added behind
                new += [(names[n], "drive0", n, shards[n]) for n in range(50, 53)]
        before, after = by_shard(old, following), by_shard(new, following)
        expected = {shard for shard in {*before, *after} if before[shard] != after[shard]}
        was, now = ids(old, following), ids(new, following)
        changed = {shard for shard in {*was, *now} if was.get(shard) != now.get(shard)}
        assert changed == expected
        seen += bool(expected)
    assert seen > 20


def test_images_without_neighbours_have_none() -> None:
    assert ids([("0" * 32, "a", 0, "s"), ("1" * 32, "b", 0, "s")], 5) == {}
    assert ids([], 5) == {}
    assert ids([("0" * 32, "a", 0, "s"), ("1" * 32, "a", 1, "s")], 0) == {}


def test_a_shards_ids_are_its_pairs_in_rising_order() -> None:
    """By hand: a drive of three through shards t, s, t; the pair of each is of the later shard."""
    a, b, c = (letter * 32 for letter in "abc")
    images = [(c, "drive", 0, "t"), (a, "drive", 1, "s"), (b, "drive", 2, "t")]
    assert ids(images, 1) == {"t": (a + b + a + c).encode()}
    assert ids(images, 2) == {"t": (a + b + a + c + b + c).encode()}
