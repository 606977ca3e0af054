"""Which shard each image of a block lies in: it stays there when others come and go.

Cut anew by how many there are, a photograph that was deleted would move its neighbours to other
shards, and all that was made of these would be made again.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import h3
import pyarrow as pa

from vladmap.photos.cells import joined_cells
from vladmap.schemas.records import NO_CELL

Shard = tuple[str, int]
"""The cell that a shard is called after, and its number among those of this name."""


class Home(NamedTuple):
    """The images of a `cell` whose ids are `first` or above lie in the shard (`name`, `piece`), up
    to the next Home of the same cell. The first of a cell begins with an empty id."""

    cell: str
    first: str
    name: str
    piece: int


HOMES = pa.schema(
    [("cell", pa.string()), ("first", pa.string()), ("name", pa.string()), ("piece", pa.int32())]
)

_MOST_PIECES = 10**6


def homes_table(homes: Iterable[Home]) -> pa.Table:
    """Homes as a table, sorted."""
    return pa.Table.from_pylist([home._asdict() for home in sorted(homes)], schema=HOMES)


def homes_of(table: pa.Table) -> list[Home]:
    """The homes of a table. Raises ValueError for a value that none can have: names become paths,
    and an atlas may come from someone else."""
    if not table.schema.equals(HOMES):
        raise ValueError("its columns are not those of shards' places")
    homes = [Home(**row) for row in table.to_pylist()]
    for home in homes:
        if None in home or not all(map(_is_cell, (home.cell, home.name))):
            raise ValueError(f"{home.cell!r} in {home.name!r}: no cells")
        if not 0 <= home.piece < _MOST_PIECES:
            raise ValueError(f"{home.piece}: not the number of a shard")
    return homes


def _is_cell(name: str) -> bool:
    return name == NO_CELL or h3.is_valid_cell(name)


def placed(
    images: Mapping[str, Sequence[str]], homes: Iterable[Home], full: int, *, joining: bool
) -> tuple[dict[Shard, list[tuple[str, str]]], list[Home]]:
    """The (cell, image_id) of each shard, and the homes that hold from now on.

    `images` are the sorted ids of each cell. Where no home is known for a cell, its images are cut
    into shards of at most `full`, together with those of cells that share its name (joined_cells,
    if `joining`). A shard that has come to hold more gives what is too much to new ones. Given the
    homes that it returned, it returns the same for the same images, and for fewer of them the same
    shards without those that are gone.
    """
    known: dict[str, list[Home]] = defaultdict(list)
    pieces: dict[str, int] = defaultdict(int)
    for home in sorted(homes):
        known[home.cell].append(home)
        pieces[home.name] = max(pieces[home.name], home.piece + 1)
    shards: dict[Shard, list[tuple[str, str]]] = defaultdict(list)
    for cell in sorted(set(images) & set(known)):
        for image in images[cell]:
            home = _home(known[cell], image)
            shards[home.name, home.piece].append((cell, image))
    new = {cell: len(ids) for cell, ids in images.items() if cell not in known}
    names = joined_cells(new, full) if joining else {cell: cell for cell in new}
    waiting: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for (name, _), members in shards.items():
        waiting[name] += members[full:]
        del members[full:]
    for cell, name in names.items():
        waiting[name] += [(cell, image) for image in images[cell]]
    for name, members in sorted(waiting.items()):
        members.sort()
        for start in range(0, len(members), full):
            shard = (name, pieces[name])
            pieces[name] += 1
            shards[shard] = members[start : start + full]
            for cell, image in shards[shard]:
                there = known[cell]
                if not there or _home(there, image)[2:] != shard:
                    bisect.insort(there, Home(cell, image if there else "", *shard))
    return dict(shards), [home for cell in sorted(known) for home in known[cell]]


def _home(homes: Sequence[Home], image: str) -> Home:
    """The home of an image among those of its cell."""
    return homes[max(0, bisect.bisect_right(homes, image, key=lambda home: home.first) - 1)]
