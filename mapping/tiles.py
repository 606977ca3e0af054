"""Tiles: bounded, connected, overlapping sets of images, each to be reconstructed on its own.

Images are cut into two, and each part again, until each fits. Cuts run along lines of a fixed grid
(that of the quadtree of Web Mercator): the coarsest line that leads to few enough tiles, because
each tile maps its overlap once more. A collection that grows keeps coarse lines, so that tiles far
from what is new stay as they are. A line that cuts a street leaves fragments that no pair joins to
the rest of their part: they go to the tile that they are best connected to.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vladmap.mapping.arrays import Indices
from vladmap.mapping.graph import connected_components

# Of a tile's bound, the share left to images that it has in common with its neighbours.
_OVERLAP = 0.2
# At most so many tiles, over images / bound, are to come of a cut.
_TILES = 1.5
# A core smaller than this share of its bound joins a neighbour, which may reach this share of all.
_FRAGMENT = 0.5
_FULL = 0.9
# What comes of a cut, from grids of 600 to 5,000 images along 4 to 20 streets: tiles over images /
# bound (1.25 to 1.6), and images of all tiles over images (1.05 to 1.4).
_EXPECTED_TILES = 1.4
_EXPECTED_IMAGES = 1.25
_MAX_LEVEL = 30
_MAX_LATITUDE = 85.0511


@dataclass(frozen=True)
class Tile:
    """One tile: its images sorted by id, and which of them are its core.

    Every image that has a trusted pair is in the core of exactly one tile; the others overlap. A
    core is connected by its own pairs, unless the whole collection is one tile.
    """

    name: str
    image_ids: list[str]
    core: NDArray[np.bool_]


def plan_tiles(
    image_ids: Sequence[str],
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    pair_a: Sequence[str],
    pair_b: Sequence[str],
    pair_weight: NDArray[np.float64],
    max_images: int = 500,
) -> list[Tile]:
    """Cut the graph of trusted pairs into tiles of at most `max_images`, overlap included.

    `image_ids` are sorted; degrees are NaN without a position; the pairs are those that
    mapping.judging keeps, `pair_weight` their count of inliers. All linked images make one tile if
    they are few enough; else each connected component is a tile of its own or is cut by place, and
    what a cut leaves without a connection, or small, goes to the neighbour that it has most pairs
    with. An image without a position goes where its strongest pairs go. Tiles overlap by the
    images that have most pairs with the core. Tiles are sorted by name. Memory and time grow with
    images and pairs.
    """
    ids = np.asarray(image_ids, object)
    rows = {image: row for row, image in enumerate(image_ids)}
    first = np.array([rows[image] for image in pair_a], np.int64)
    second = np.array([rows[image] for image in pair_b], np.int64)
    linked = np.unique(np.concatenate([first, second]))
    if len(linked) == 0:
        return []
    if len(linked) <= max_images:
        return [_tile("all", ids, linked, linked)]
    latitude, longitude = _spread_positions(latitude, longitude, first, second, pair_weight)
    component = connected_components(len(ids), first, second)
    core_images = int(max_images * (1 - _OVERLAP))
    leaf_of = np.full(len(ids), -1, np.int64)
    leaves = (
        leaf
        for root in np.unique(component[linked])
        for leaf in _leaves(
            linked[component[linked] == root], latitude, longitude, core_images, max_images
        )
    )
    for number, leaf in enumerate(leaves):
        leaf_of[leaf] = number
    inside = leaf_of[first] == leaf_of[second]
    piece = connected_components(len(ids), first[inside], second[inside])
    piece[leaf_of < 0] = -1
    group = _mended(piece, first, second, core_images, max_images)
    tiles = [
        _tile(
            f"c{ids[number][:16]}",
            ids,
            np.flatnonzero(group == number),
            _overlapping(group, number, first, second, pair_weight, max_images),
        )
        for number in np.unique(group[linked]).tolist()
    ]
    return sorted(tiles, key=lambda tile: tile.name)


def expected_tiles(images: int, max_images: int) -> tuple[int, int]:
    """About how many tiles of at most `max_images` come of so many linked images, and the images of
    each, overlap included."""
    if images <= max_images:
        return (1, images) if images else (0, 0)
    at_least = math.ceil(images / int(max_images * (1 - _OVERLAP)))
    tiles = max(at_least, round(_EXPECTED_TILES * images / max_images))
    return tiles, min(max_images, math.ceil(_EXPECTED_IMAGES * images / tiles))


def _mended(piece: Indices, first: Indices, second: Indices, bound: int, full: int) -> Indices:
    """The pieces, small ones joined to the neighbour that they have most pairs with.

    Pieces and groups are named by their first image, -1 for images outside; smallest first.
    """
    sizes = {int(name): int(size) for name, size in zip(*_counts(piece[piece >= 0]), strict=True)}
    a, b = piece[first], piece[second]
    across = (a != b) & (a >= 0) & (b >= 0)
    low, high = np.minimum(a, b)[across], np.maximum(a, b)[across]
    keys, counts = _counts(low * len(piece) + high)
    links: defaultdict[int, dict[int, int]] = defaultdict(dict)
    for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
        one, other = divmod(key, len(piece))
        links[one][other] = links[other][one] = count
    into: dict[int, int] = {}
    waiting = [(size, name) for name, size in sizes.items()]
    heapq.heapify(waiting)
    while waiting:
        size, name = heapq.heappop(waiting)
        if name in into or size != sizes[name] or size >= _FRAGMENT * bound:
            continue
        fitting = [
            (count, -other)
            for other, count in links[name].items()
            if size + sizes[other] <= max(bound, _FULL * full)
        ]
        if not fitting:
            continue
        other = into[name] = -max(fitting)[1]
        sizes[other] += size
        heapq.heappush(waiting, (sizes[other], other))
        for third, count in links.pop(name).items():
            del links[third][name]
            if third != other:
                links[other][third] = links[third][other] = links[other].get(third, 0) + count
    names, place = np.unique(piece, return_inverse=True)
    ends = names.tolist()
    for row, name in enumerate(ends):
        while name in into:
            name = into[name]
        ends[row] = name
    return np.array(ends, np.int64)[place]


def _counts(values: Indices) -> tuple[Indices, Indices]:
    distinct, count = np.unique(values, return_counts=True)
    return distinct, count.astype(np.int64)


def _tile(name: str, ids: NDArray[np.object_], core: Indices, members: Indices) -> Tile:
    members = np.union1d(core, members)
    return Tile(name, ids[members].tolist(), np.isin(members, core))


def _overlapping(
    group: Indices,
    number: int,
    first: Indices,
    second: Indices,
    weight: NDArray[np.float64],
    max_images: int,
) -> Indices:
    """Images of other tiles that have most pairs with this core, as many as its bound allows.

    Pairs, not inliers: those beside the border see many of the core's images. Inliers break ties.
    """
    inside = group == number
    towards, of = np.concatenate([first, second]), np.concatenate([second, first])
    joins = inside[of] & ~inside[towards]
    partners = np.bincount(towards[joins], minlength=len(group))
    inliers = np.bincount(towards[joins], np.concatenate([weight, weight])[joins], len(group))
    order = np.lexsort((-inliers, -partners))[: max(0, max_images - int(inside.sum()))]
    return order[partners[order] > 0]


def _spread_positions(
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    first: Indices,
    second: Indices,
    weight: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions, those that are missing taken from the strongest partner that has one."""
    latitude, longitude = latitude.copy(), longitude.copy()
    towards = np.concatenate([first, second])
    source = np.concatenate([second, first])
    strength = np.concatenate([weight, weight])
    while True:
        usable = np.isnan(latitude[towards]) & ~np.isnan(latitude[source])
        if not usable.any():
            return latitude, longitude
        to, of, by = towards[usable], source[usable], strength[usable]
        order = np.lexsort((of, -by, to))
        taken, best = np.unique(to[order], return_index=True)
        latitude[taken], longitude[taken] = latitude[of[order][best]], longitude[of[order][best]]


def _leaves(
    members: Indices,
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    bound: int,
    full: int,
) -> list[Indices]:
    """Cut one component into parts of at most `bound` images, for tiles of at most `full`.

    `members` (m,) are rows of `latitude` and `longitude` (n,), in degrees; so are the parts.
    """
    if len(members) <= bound:
        return [members]
    if np.isnan(latitude[members]).any():
        # No position anywhere in the component: there is nothing to cut along but the ids.
        return np.array_split(members, -(-len(members) // bound))
    x = (longitude[members] + 180.0) / 360.0
    sine = np.sin(np.radians(np.clip(latitude[members], -_MAX_LATITUDE, _MAX_LATITUDE)))
    y = 0.5 - np.log((1 + sine) / (1 - sine)) / (4 * np.pi)
    steps = 1 << _MAX_LEVEL
    axes = [(value * steps).clip(0, steps - 1).astype(np.int64) for value in (x, y)]
    leaves: list[Indices] = []
    waiting = [np.arange(len(members))]
    while waiting:
        inside = waiting.pop()
        if len(inside) <= bound:
            leaves.append(members[inside])
        else:
            waiting.extend(_halves(inside, axes, bound, full))
    return leaves


def _halves(
    inside: Indices, axes: Sequence[Indices], bound: int, full: int
) -> tuple[Indices, Indices]:
    """Cut rows of `axes`, (n,) places along each, into two by one line of the grid.

    It is the coarsest of those that lead to few enough tiles, and of equals the one in the middle.
    """
    count = len(inside)
    below = np.arange(1, count)
    tiles = np.maximum(
        _tiles_of(below, bound, full) + _tiles_of(count - below, bound, full),
        _tiles_of(np.array(count), bound, full),
    )
    best: tuple[tuple[int, ...], int, Indices] | None = None
    for axis in axes:
        order = inside[np.argsort(axis[inside], kind="stable")]
        # Places differ from the bit on at which a line lies between them; 0 for the same place.
        _, level = np.frexp((axis[order][1:] ^ axis[order][:-1]).astype(np.float64))
        usable = np.flatnonzero(level)
        if len(usable):
            off = np.abs(2 * below - count)
            at = usable[np.lexsort((off[usable], -level[usable], tiles[usable]))[0]]
            key = (int(tiles[at]), -int(level[at]), int(off[at]))
            if best is None or key < best[0]:
                best = key, int(at) + 1, order
    if best is None:  # all at one place
        return inside[: count // 2], inside[count // 2 :]
    _, at, order = best
    return np.sort(order[:at]), np.sort(order[at:])


def _tiles_of(images: Indices, bound: int, full: int) -> Indices:
    """How many tiles numbers of images may come to: as many as must be, or as are few enough."""
    return np.maximum(-(-images // bound), (_TILES * images / full).astype(np.int64))
