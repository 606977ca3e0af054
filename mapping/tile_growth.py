"""Tiles of a collection that grows: those that there are stay, new images join them.

A cut of the whole graph moves a little with every image that is new, and a tile whose images are
others is mapped again. So the plan is kept: a tile keeps its core and its overlap, a new image
joins the core that it has most trusted pairs with, a core is cut anew where it has outgrown the
bound, and what its own pairs do not join to it any more leaves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.graph import connected_components
from vladmap.mapping.tile_cuts import cut_into_cores
from vladmap.mapping.tiles import (
    ALL,
    FRAGMENT,
    Tile,
    by_value,
    members_of,
    plan_tiles,
    positions_by_pairs,
)

GROWN = 1.25
"""A tile that grows may have so many times its bound of images; its core is cut anew where it
passes the bound itself (cores of a first plan have at most tile_cuts.FULL of it)."""
# A core that has lost a larger share of its images is given up, and the rest joins others.
_LOST = 0.5
# Two tiles between which new pairs lie are to have so many images in common.
_SEAM = 12


@dataclass(frozen=True)
class TilePlan:
    """The tiles, sorted by name, and what became of those that there were.

    `kept` have the images that they had, `grown` others, too, or fewer; `opened` are new;
    `given_up` gives the reason for each that is no more.
    """

    tiles: list[Tile]
    kept: list[str]
    grown: list[str]
    opened: list[str]
    given_up: dict[str, str]


def grow_tiles(
    before: Sequence[Tile],
    image_ids: Sequence[str],
    latitude: Array,
    longitude: Array,
    first: Indices,
    second: Indices,
    weight: Array,
    max_images: int = 500,
) -> TilePlan:
    """Plan the tiles of a collection of which some images lie in tiles already.

    The arguments are those of `tiles.plan_tiles`; `before` are the tiles of an earlier plan, which
    may name images that are gone. Every linked image is in exactly one core. One that is in none
    joins the core that it has most pairs with, or where that is full the next one; images that
    find no room, or touch no core, are cut into tiles of their own where they are many enough, else
    the core that they touch most is cut anew with them. The same plan again, with nothing new,
    gives itself.
    """
    linked = np.unique(np.concatenate([first, second]))
    one = len(before) == 1 and before[0].name == ALL
    few = len(linked) <= max_images * (GROWN if one else 1)
    if len(linked) == 0 or not before or (one and not few):
        tiles = plan_tiles(image_ids, latitude, longitude, first, second, weight, max_images)
        reason = f"{len(linked)} images are over the bound of {max_images}"
        return _told(before, tiles, {tile.name: reason for tile in before})
    if one:
        ids = np.asarray(image_ids, object)[linked].tolist()
        return _told(before, [Tile(ALL, ids, np.ones(len(ids), bool))], {})
    growth = _Growth(before, image_ids, latitude, longitude, first, second, weight, max_images)
    return _told(before, growth.tiles(), growth.given_up)


def _told(before: Sequence[Tile], tiles: list[Tile], given_up: dict[str, str]) -> TilePlan:
    had = {tile.name: (tile.image_ids, tile.core.tolist()) for tile in before}
    now = {tile.name: (tile.image_ids, tile.core.tolist()) for tile in tiles}
    return TilePlan(
        tiles,
        [name for name in now if now[name] == had.get(name)],
        [name for name in now if name in had and now[name] != had[name]],
        [name for name in now if name not in had],
        {name: given_up.get(name, "none of its images has a pair") for name in had.keys() - now},
    )


class _Growth:
    """One growth of a plan: `core` (n,) is the number of each image's tile, -1 for none.

    Tiles have the numbers of `before`; new ones the numbers after these.
    """

    def __init__(
        self,
        before: Sequence[Tile],
        image_ids: Sequence[str],
        latitude: Array,
        longitude: Array,
        first: Indices,
        second: Indices,
        weight: Array,
        max_images: int,
    ) -> None:
        self.ids = np.asarray(image_ids, object)
        self.before, self.max_images = before, max_images
        self.first, self.second, self.weight = first, second, weight
        self.latitude, self.longitude = latitude, longitude
        self.given_up: dict[str, str] = {}
        ends = np.concatenate([first, second]), np.concatenate([second, first])
        shape = (len(self.ids), len(self.ids))
        self.pairs, self.inliers = (
            sparse.csr_array((each, ends), shape=shape)
            for each in (np.ones(2 * len(first), np.int64), np.concatenate([weight, weight]))
        )
        self.linked = np.unique(ends[0])
        self.core = np.full(len(self.ids), -1, np.int64)
        for number, tile in enumerate(before):
            self.core[self._rows(np.asarray(tile.image_ids, object)[tile.core])] = number
        self.old = self.core >= 0
        self.tile_count = len(before)
        self.fresh: set[int] = set()

    def tiles(self) -> list[Tile]:
        self._give_up_remnants()
        self._detach_pieces()
        self._join()
        self._open()
        self._cut_anew()
        return self._with_overlap()

    def _rows(self, ids: Array) -> Indices:
        """The rows of those of some images that are still there and linked."""
        at = np.searchsorted(self.ids, ids)
        at = at[at < len(self.ids)]
        at = at[np.isin(self.ids[at], ids)]
        return np.intersect1d(at, self.linked)

    def _give_up_remnants(self) -> None:
        for number, tile in enumerate(self.before):
            rows = np.flatnonzero(self.core == number)
            had = int(tile.core.sum())
            if len(rows) < _LOST * had:
                self.given_up[tile.name] = f"{len(rows)} of its {had} images are left"
                self.core[rows] = -1

    def _detach_pieces(self) -> None:
        """Take out of each core what its own pairs do not join to the largest piece of it."""
        inside = (self.core[self.first] == self.core[self.second]) & (self.core[self.first] >= 0)
        piece = connected_components(len(self.ids), self.first[inside], self.second[inside])
        held = np.flatnonzero(self.core >= 0)
        sizes = np.bincount(piece[held], minlength=len(self.ids))
        order = held[np.lexsort((piece[held], -sizes[piece[held]], self.core[held]))]
        tile = self.core[order]
        largest = piece[order[np.searchsorted(tile, tile)]]
        self.core[order[piece[order] != largest]] = -1

    def _join(self) -> None:
        """Images without a core join the one that they have most pairs with, round by round."""
        while True:
            waiting = self.linked[self.core[self.linked] < 0]
            held = np.flatnonzero(self.core >= 0)
            if len(waiting) == 0 or len(held) == 0:
                return
            room = self.max_images - np.bincount(self.core[held], minlength=self.tile_count)
            towards = sparse.csr_array(
                (np.ones(len(held), np.int64), (held, self.core[held])),
                shape=(len(self.ids), self.tile_count),
            )
            image, tile, count, inliers = self._seen(waiting, towards)
            roomy = room[tile] > 0
            image, tile = image[roomy], tile[roomy]
            count, inliers = count[roomy], inliers[roomy]
            if len(image) == 0:
                return
            order = np.lexsort((tile, -inliers, -count, image))
            best = order[np.unique(image[order], return_index=True)[1]]
            best = best[np.lexsort((image[best], -inliers[best], -count[best], tile[best]))]
            place = np.arange(len(best)) - np.searchsorted(tile[best], tile[best])
            best = best[place < room[tile[best]]]
            self.core[waiting[image[best]]] = tile[best]

    def _seen(
        self, rows: Indices, towards: sparse.csr_array
    ) -> tuple[Indices, Indices, Indices, Array]:
        """Which of some images, by their places in `rows`, have pairs with which tiles: (k,) each,
        with the number of pairs and of their inliers. `towards` (n, tiles) says who is where."""
        pairs, inliers = ((graph[rows] @ towards).tocoo() for graph in (self.pairs, self.inliers))
        one, other = (np.lexsort((each.col, each.row)) for each in (pairs, inliers))
        image, tile = (np.asarray(each[one], np.int64) for each in (pairs.row, pairs.col))
        return image, tile, pairs.data[one], inliers.data[other]

    def _open(self) -> None:
        """Images that found no room or touch no core become tiles of their own.

        Where they are few, or have most of their pairs with cores, they go to the core that they
        have most pairs with, though that passes the bound; what has pairs with no core is a tile,
        however small.
        """
        for rows in self._pieces_without_core():
            partner = self.pairs[rows].tocoo().col
            seen = self.core[partner]
            outside, seen = int((seen < 0).sum()), seen[seen >= 0]
            few = len(rows) < FRAGMENT * self.max_images
            if len(seen) and (few or outside < len(seen)):
                self.core[rows] = int(np.argmax(np.bincount(seen)))
            else:
                self._cut(rows)

    def _pieces_without_core(self) -> list[Indices]:
        left = self.linked[self.core[self.linked] < 0]
        if len(left) == 0:
            return []
        inside = (self.core[self.first] < 0) & (self.core[self.second] < 0)
        label = connected_components(len(self.ids), self.first[inside], self.second[inside])
        return list(by_value(label[left], left).values())

    def _cut_anew(self) -> None:
        """Cut the cores that have outgrown the bound."""
        sizes = np.bincount(self.core[self.core >= 0], minlength=self.tile_count)
        for number in np.flatnonzero(sizes > self.max_images).tolist():
            if number not in self.fresh:
                self.given_up[self.before[number].name] = (
                    f"its core of {sizes[number]} images is over the bound of {self.max_images}"
                )
                self._cut(np.flatnonzero(self.core == number))

    def _cut(self, rows: Indices) -> None:
        """Cut connected images into the cores of new tiles."""
        latitude, longitude = positions_by_pairs(
            self.latitude, self.longitude, self.first, self.second, self.weight
        )
        for core in cut_into_cores(rows, latitude, longitude, self.pairs, self.max_images):
            self.core[core] = self.tile_count
            self.fresh.add(self.tile_count)
            self.tile_count += 1

    def _with_overlap(self) -> list[Tile]:
        """The tiles: those of before with the overlap that they had, new ones with one of their
        own, and tiles between which new pairs lie with enough images in common."""
        cores = by_value(self.core[self.linked], self.linked)
        group = np.full(len(self.ids), -1, np.int64)
        for core in cores.values():
            group[core] = core[0]
        wide = members_of(group, self.first, self.second, self.weight, self.max_images)
        members: dict[int, Indices] = {}
        for number, core in cores.items():
            if number in self.fresh:
                members[number] = np.union1d(core, wide[int(core[0])])
            else:
                had = self._rows(np.asarray(self.before[number].image_ids, object))
                members[number] = np.union1d(core, had)
        self._widen_seams(members)
        names = self._names(cores)
        tiles = [
            Tile(names[number], self.ids[held].tolist(), self.core[held] == number)
            for number, held in members.items()
        ]
        return sorted(tiles, key=lambda tile: tile.name)

    def _names(self, cores: dict[int, Indices]) -> dict[int, str]:
        """Old names stay; a new tile has that of its first image whose name is free."""
        names = {each: self.before[each].name for each in cores if each not in self.fresh}
        taken = {tile.name for tile in self.before}
        for number in sorted(self.fresh & cores.keys()):
            own = [f"c{image[:16]}" for image in self.ids[cores[number]].tolist()]
            names[number] = next((name for name in own if name not in taken), f"{own[0]}-{number}")
            taken.add(names[number])
        return names

    def _widen_seams(self, members: dict[int, Indices]) -> None:
        """Give tiles with new images in their cores images of those that these have pairs with."""
        new = ~self.old & (self.core >= 0)
        across = (self.core[self.first] != self.core[self.second]) & (
            new[self.first] | new[self.second]
        )
        ends = np.sort(
            np.stack([self.core[self.first[across]], self.core[self.second[across]]], axis=1)
        )
        for one, other in np.unique(ends, axis=0).tolist():
            missing = _SEAM - len(np.intersect1d(members[one], members[other]))
            if missing <= 0:
                continue
            for at, towards in ((one, other), (other, one)):
                room = int(GROWN * self.max_images) - len(members[at])
                candidates = np.flatnonzero(self.core == towards)
                candidates = candidates[~np.isin(candidates, members[at])]
                inside = np.zeros(len(self.ids), np.int64)
                inside[members[at]] = 1
                count, matches = (
                    graph[candidates] @ inside for graph in (self.pairs, self.inliers)
                )
                order = np.lexsort((-matches, -count))
                order = order[count[order] > 0][: max(0, min(missing, room))]
                members[at] = np.union1d(members[at], candidates[order])
                missing = _SEAM - len(np.intersect1d(members[one], members[other]))
                if missing <= 0:
                    break
