"""Whether a tile is mapped from the same pairs though they were judged again."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from vladmap.mapping.judging import JUDGED
from vladmap.mapping.tile_inputs import map_alike

ROWS = [
    ("a", "b", "kept", 3.0, 30.0),
    ("a", "c", "kept", 40.0, 30.0),
    ("b", "c", "far", 90.0, 30.0),
]


def table(changed: dict[int, tuple[Any, ...]] | None = None) -> pa.Table:
    rows = [(changed or {}).get(number, row) for number, row in enumerate(ROWS)]
    return pa.Table.from_pylist(
        [dict(zip(JUDGED.names, row, strict=True)) for row in rows], schema=JUDGED
    )


@pytest.mark.parametrize(
    ("changed", "alike"),
    [
        ({}, True),
        # Another reason not to trust a pair, and its distance.
        ({2: ("b", "c", "depth", 20.0, 30.0)}, True),
        # GPS offsets that moved by centimetres.
        ({0: ("a", "b", "kept", 3.4, 30.2)}, True),
        # By metres: such distances decide which pairs a map collapses.
        ({0: ("a", "b", "kept", 5.0, 30.0)}, False),
        # No longer further apart than GPS explains.
        ({1: ("a", "c", "kept", 39.9, 40.0)}, False),
        ({0: ("a", "b", "far", 3.0, 30.0)}, False),
        ({2: ("b", "c", "kept", 90.0, 30.0)}, False),
        ({0: ("a", "b", "kept", None, 30.0)}, False),
    ],
)
def test_only_what_a_map_is_made_of_counts(
    changed: dict[int, tuple[Any, ...]], alike: bool
) -> None:
    assert map_alike(table(), table(changed)) == alike


@pytest.mark.parametrize(("gained", "alike"), [(2, True), (3, False)])
def test_a_map_stands_though_a_hundredth_of_its_pairs_is_trusted_only_now(
    gained: int, alike: bool
) -> None:
    """No map rests on them yet; a pair that it rests on must not be lost."""
    rows = [("a", f"b{number:03d}", "kept", 3.0, 30.0) for number in range(200)]
    more = rows + [("a", f"c{number}", "kept", 3.0, 30.0) for number in range(gained)]
    before, now = (
        pa.Table.from_pylist(
            [dict(zip(JUDGED.names, row, strict=True)) for row in each], schema=JUDGED
        )
        for each in (rows, more)
    )
    assert map_alike(before, now) == alike
    assert not map_alike(now, before)


def test_distances_that_nobody_knows_are_the_same() -> None:
    unknown = table({0: ("a", "b", "kept", None, None)})
    assert map_alike(unknown, unknown)
