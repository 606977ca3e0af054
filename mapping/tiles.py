"""Tiles: bounded, connected, overlapping sets of images, each to be reconstructed on its own.

Images are cut into cores where they see least of each other (mapping.tile_cuts), because what a
tile does not see of its neighbours is lost to it, and each tile maps its overlap once more. Small
cores join a neighbour; to each core come the images of others that see most of it.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.graph import connected_components
from vladmap.mapping.tile_cuts import FULL, MOST, cut_into_cores

FRAGMENT = 0.5
"""A core smaller than this share of its bound joins a neighbour."""
ALL = "all"
"""The tile of a collection that is a tile as a whole."""
FROM_POSES = 100
"""A tile of so many images is mapped from first poses; smaller ones incrementally, which fails more
often."""
# If its bound allows, a tile has so many images more than its core, as a share of it, and
# FROM_POSES in all: those in pairs with the core, those in pairs with these, so many times.
_OVERLAP = 0.2
_RINGS = 4
# What comes of a cut, from grids of 600 to 5,000 images along 4 to 20 streets: tiles over images /
# bound (1.2 to 1.5), and images of all tiles over images (1.2 to 1.5).
_EXPECTED_TILES = 1.4
_EXPECTED_IMAGES = 1.25


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
    latitude: Array,
    longitude: Array,
    first: Indices,
    second: Indices,
    weight: Array,
    max_images: int = 500,
) -> list[Tile]:
    """Cut the graph of trusted pairs into tiles of at most `max_images`, overlap included.

    `image_ids` (n,) are sorted; degrees (n,) are NaN without a position. `first` and `second` (m,)
    are rows of images: the pairs that mapping.judging keeps, once each, and `weight` (m,) their
    count of inliers. All linked images make one tile if they are few enough; else each connected
    component is a tile of its own or is cut, and small cores go to the neighbour that they have
    most pairs with. An image without a position goes where its strongest pairs go. Tiles overlap by
    the images that have most pairs with the core. Tiles are sorted by name. Memory and time grow
    with images and pairs.
    """
    ids = np.asarray(image_ids, object)
    linked = np.unique(np.concatenate([first, second]))
    if len(linked) == 0:
        return []
    if len(linked) <= max_images:
        return [_tile(ALL, ids, linked, linked)]
    latitude, longitude = positions_by_pairs(latitude, longitude, first, second, weight)
    ends = np.concatenate([first, second]), np.concatenate([second, first])
    ones = np.ones(2 * len(first), np.int64)
    graph = sparse.csr_array((ones, ends), shape=(len(ids), len(ids)))
    core_of = np.full(len(ids), -1, np.int64)
    for component in _components(linked, first, second, len(ids)):
        for core in cut_into_cores(component, latitude, longitude, graph, max_images):
            core_of[core] = core[0]
    group = _mended(core_of, first, second, int(max_images * MOST), max_images)
    members = members_of(group, first, second, weight, max_images)
    tiles = [
        _tile(f"c{ids[name][:16]}", ids, core, members[name])
        for name, core in by_value(group[linked], linked).items()
    ]
    return sorted(tiles, key=lambda tile: tile.name)


def _components(linked: Indices, first: Indices, second: Indices, count: int) -> list[Indices]:
    """The linked images by connected component, each sorted."""
    return list(by_value(connected_components(count, first, second)[linked], linked).values())


def by_value(values: Indices, rows: Indices) -> dict[int, Indices]:
    """Some rows by their values, (k,) both, and both in increasing order."""
    order = np.lexsort((rows, values))
    distinct, begins = np.unique(values[order], return_index=True)
    return dict(zip(distinct.tolist(), np.split(rows[order], begins[1:]), strict=True))


def expected_tiles(images: int, max_images: int) -> tuple[int, int]:
    """About how many tiles of at most `max_images` come of so many linked images, and the images of
    each, overlap included."""
    if images <= max_images:
        return (1, images) if images else (0, 0)
    at_least = math.ceil(images / int(max_images * MOST))
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
        if name in into or size != sizes[name] or size >= FRAGMENT * bound:
            continue
        fitting = [
            (count, -other)
            for other, count in links[name].items()
            if size + sizes[other] <= max(bound, FULL * full)
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


def members_of(
    group: Indices, first: Indices, second: Indices, weight: Array, max_images: int
) -> dict[int, Indices]:
    """The images of each tile: its core, and of other cores those that have most pairs with it.

    They are as many as its bound allows. Where that are few, those come, too, that have most pairs
    with all of these.
    """
    image = np.flatnonzero(group >= 0)
    of = group[image]
    ends = np.concatenate([first, second]), np.concatenate([second, first])
    pairs, inliers = (
        sparse.csr_array((each, ends), shape=(len(group), len(group)))
        for each in (np.ones(2 * len(first)), np.concatenate([weight, weight]))
    )
    sizes = np.bincount(of, minlength=len(group))
    of, image = _with_partners(of, image, pairs, inliers, np.full(len(group), max_images))
    most = (sizes * (1 + _OVERLAP)).astype(np.int64)
    if max_images >= FROM_POSES:
        most = np.maximum(most, FROM_POSES)
    for _ in range(1, _RINGS):
        of, image = _with_partners(of, image, pairs, inliers, np.minimum(most, max_images))
    return by_value(of, image)


def _with_partners(
    of: Indices, image: Indices, pairs: sparse.csr_array, inliers: sparse.csr_array, most: Indices
) -> tuple[Indices, Indices]:
    """Tiles and their images, `of` and `image` (k,), with those that have most pairs with them.

    `pairs` and `inliers` (n, n) are symmetric; `most` (n,) is how many images a tile may have.
    Pairs, not inliers: those beside the border see many of a tile's images. Inliers break ties.
    """
    held = sparse.csr_array((np.ones(len(of)), (image, of)), shape=pairs.shape)
    partners, matches = (pairs @ held).tocoo(), (inliers @ held).tocoo()
    by_key = [each.col.astype(np.int64) * len(most) + each.row for each in (partners, matches)]
    one, other = (np.argsort(key, kind="stable") for key in by_key)
    key = by_key[0][one]
    new = ~np.isin(key, of * len(most) + image)
    towards, found = np.divmod(key[new], len(most))
    order = np.lexsort((-matches.data[other][new], -partners.data[one][new], towards))
    room = most - np.bincount(of, minlength=len(most))
    chosen = order[np.arange(len(order)) - np.searchsorted(towards, towards) < room[towards]]
    return np.concatenate([of, towards[chosen]]), np.concatenate([image, found[chosen]])


def positions_by_pairs(
    latitude: Array,
    longitude: Array,
    first: Indices,
    second: Indices,
    weight: Array,
) -> tuple[Array, Array]:
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
