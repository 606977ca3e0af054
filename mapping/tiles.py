"""Tiles: bounded, overlapping sets of images, each to be reconstructed on its own.

Boundaries are lines of a fixed grid (the quadtree of Web Mercator), so that a collection that
grows splits the tiles that outgrow their bound and leaves the others as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mapping.graph import connected_components

Indices = NDArray[np.int64]

# Of a tile's bound, the share left to images that it has in common with its neighbours.
_OVERLAP = 0.2
_MAX_LEVEL = 30
_MAX_LATITUDE = 85.0511


@dataclass(frozen=True)
class Tile:
    """One tile: its images sorted by id, and which of them are its core.

    Every image that has a verified pair is in the core of exactly one tile; the others overlap.
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
    """Cut the graph of verified pairs into tiles of at most `max_images`, overlap included.

    `image_ids` are sorted; degrees are NaN without a position; `pair_weight` is the count of
    inliers. All linked images make one tile if they are few enough; else each connected component
    is a tile of its own or is cut by place. An image without a position goes where its strongest
    pairs go. Tiles are sorted by name. Memory and time grow with images and pairs.
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
    group = np.full(len(ids), -1, np.int64)
    names: list[str] = []
    for root in np.unique(component[linked]):
        members = linked[component[linked] == root]
        for suffix, leaf in _leaves(members, latitude, longitude, core_images):
            group[leaf] = len(names)
            names.append(f"c{ids[root][:12]}{suffix}")
    tiles = [
        _tile(
            name,
            ids,
            np.flatnonzero(group == number),
            _overlapping(group, number, first, second, pair_weight, max_images),
        )
        for number, name in enumerate(names)
    ]
    return sorted(tiles, key=lambda tile: tile.name)


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
    """Images of other tiles that are best connected to this one, as many as its bound allows."""
    inside = group == number
    strength = np.bincount(first, weight * inside[second], len(group))
    strength += np.bincount(second, weight * inside[first], len(group))
    strength[inside] = 0.0
    order = np.argsort(-strength, kind="stable")[: max_images - int(inside.sum())]
    return order[strength[order] > 0]


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
) -> list[tuple[str, Indices]]:
    """(suffix of the name, images) of the leaves of the quadtree over one component."""
    if len(members) <= bound:
        return [("", members)]
    if np.isnan(latitude[members]).any():
        # No position anywhere in the component: there is nothing to cut along but the ids.
        parts = np.array_split(members, -(-len(members) // bound))
        return [(f"-{number:03d}", part) for number, part in enumerate(parts)]
    x = (longitude[members] + 180.0) / 360.0
    sine = np.sin(np.radians(np.clip(latitude[members], -_MAX_LATITUDE, _MAX_LATITUDE)))
    y = 0.5 - np.log((1 + sine) / (1 - sine)) / (4 * np.pi)
    steps = 1 << _MAX_LEVEL
    column, row = ((value * steps).clip(0, steps - 1).astype(np.int64) for value in (x, y))
    leaves: list[tuple[str, Indices]] = []
    waiting = [("", np.arange(len(members)))]
    while waiting:
        key, inside = waiting.pop()
        level = len(key)
        if len(inside) <= bound or level == _MAX_LEVEL:
            pieces = np.array_split(inside, -(-len(inside) // bound))
            leaves.extend(
                (f"-q{key}" + (f"-{number:03d}" if len(pieces) > 1 else ""), members[piece])
                for number, piece in enumerate(pieces)
            )
            continue
        shift = _MAX_LEVEL - level - 1
        quadrant = 2 * ((row[inside] >> shift) & 1) + ((column[inside] >> shift) & 1)
        waiting.extend(
            (f"{key}{digit}", inside[quadrant == digit])
            for digit in range(4)
            if (quadrant == digit).any()
        )
    return leaves
