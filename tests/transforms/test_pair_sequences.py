"""Neighbours in sequences have an identity that changes when they do, and only then."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vladmap.transforms.pair import STOPS, _predecessors, sequence_digests

Stop = tuple[str, str, int, str]  # image, sequence, place in it, shard


def behind(stops: list[Stop], following: int) -> dict[str, set[Any]]:
    """What the shuffle of the pair stage gives each shard."""
    groups: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
    for image, sequence, index, shard in stops:
        groups[sequence].append((index, shard, image))
    found: dict[str, set[Any]] = defaultdict(set)
    for group in groups.items():
        for shard, pair in _predecessors(group, following):
            found[shard].add(frozenset(pair[:2]))
    return found


def digests(stops: list[Stop], following: int) -> dict[str, str]:
    rows = [
        dict(zip([*STOPS[:3], "shard", "duplicate_of"], (*stop, None), strict=True))
        for stop in stops
    ]
    schema = pa.schema(
        [("image_id", pa.string()), ("sequence_id", pa.string()), ("sequence_index", pa.int32()),
         ("duplicate_of", pa.string()), ("shard", pa.string())]
    )  # fmt: skip
    return sequence_digests(pa.Table.from_pylist(rows, schema), following)


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
        before, after = behind(old, following), behind(new, following)
        expected = {shard for shard in {*before, *after} if before[shard] != after[shard]}
        told, now = digests(old, following), digests(new, following)
        changed = {shard for shard in {*told, *now} if told.get(shard) != now.get(shard)}
        assert changed == expected
        seen += bool(expected)
    assert seen > 20


def test_images_without_neighbours_have_none() -> None:
    assert digests([("0" * 32, "a", 0, "s"), ("1" * 32, "b", 0, "s")], 5) == {}
    assert digests([], 5) == {}
    assert digests([("0" * 32, "a", 0, "s"), ("1" * 32, "a", 1, "s")], 0) == {}
