"""Cuts: where few pairs are lost, into connected cores, the same as a city grows far from them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from vladmap.mapping.graph import connected_components
from vladmap.mapping.tile_cuts import FULL, cut_into_cores
from vladmap.mapping.tiles import plan_tiles

STEP = 2.7e-5  # degrees of latitude, 3 m


def chain(rows: np.ndarray, steps: int = 3) -> np.ndarray:
    """Pairs (m, 2) of the images of a street with the next `steps` of them."""
    return np.concatenate([np.stack([rows[:-s], rows[s:]], axis=1) for s in range(1, steps + 1)])


def cores_of(
    latitude: np.ndarray, longitude: np.ndarray, pairs: np.ndarray, bound: int
) -> list[list[int]]:
    graph = sparse.csr_array((np.ones(len(pairs), np.int64), pairs.T), shape=(len(latitude),) * 2)
    rows = np.arange(len(latitude))
    cores = cut_into_cores(rows, latitude, longitude, sparse.csr_array(graph + graph.T), bound)
    assert np.array_equal(np.sort(np.concatenate(cores)), rows)
    assert max(map(len, cores)) <= FULL * bound
    return sorted(core.tolist() for core in cores)


def lost(cores: list[list[int]], pairs: np.ndarray) -> int:
    """Pairs whose images are in different cores."""
    core = np.full(pairs.max() + 1, -1)
    for number, rows in enumerate(cores):
        core[rows] = number
    return int((core[pairs[:, 0]] != core[pairs[:, 1]]).sum())


@pytest.mark.parametrize("south", [50, 55, 65, 70])
def test_two_streets_are_cut_at_the_one_pair_that_joins_them(south: int) -> None:
    """120 images in a row, of two streets: at all other places three to six pairs would be lost.

    Wherever the lines of the grid lie: cores of 85 allow any cut from 35 to 85.
    """
    first, second = np.arange(south), np.arange(south, 120)
    pairs = np.concatenate([chain(first), chain(second), [[south - 1, south]]])
    cores = cores_of(48.0 + STEP * np.arange(120), np.full(120, 16.0), pairs, 100)
    assert cores == [first.tolist(), second.tolist()]
    assert lost(cores, pairs) == 1


def test_where_few_images_are_seen_from_across_their_neighbours_come_too() -> None:
    """Of two streets that one pair joins, each tile would have one image of the other. The three
    that are in pairs with it come, too, the three next ones, and once more."""
    pairs = np.concatenate([chain(np.arange(60)), chain(np.arange(60, 120)), [[59, 60]]])
    ids = [f"{row:08x}{0:024x}" for row in range(120)]
    weight = np.full(len(pairs), 50.0)
    tiles = plan_tiles(ids, 48.0 + STEP * np.arange(120), np.full(120, 16.0), *pairs.T, weight, 100)
    overlaps = [np.array(tile.image_ids)[~tile.core].tolist() for tile in tiles]
    assert overlaps == [ids[60:70], ids[50:60]]


def test_streets_side_by_side_are_cut_apart_not_across() -> None:
    """Two streets 6 m apart, joined at their northern ends: a line across them loses 12 pairs."""
    way = np.arange(120)
    latitude = 48.0 + STEP * np.minimum(way, 119 - way)
    longitude = 16.0 + np.where(way < 60, 0.0, 8e-5)
    cores = cores_of(latitude, longitude, chain(way), 80)
    assert cores == [list(range(60)), list(range(60, 120))]
    assert lost(cores, chain(way)) == 6


@pytest.mark.parametrize("place", [np.nan, 48.0])
def test_without_usable_places_a_street_is_cut_between_neighbours(place: float) -> None:
    """No GPS at all, or GPS that was frozen; the ids are in no order.

    200 images and cores of at most 85 make three; a cut across a street whose images see the next
    three loses 3 + 2 + 1 pairs.
    """
    rows = np.random.default_rng(0).permutation(200)
    pairs = chain(rows)
    cores = cores_of(np.full(200, place), np.full(200, place), pairs, 100)
    assert len(cores) == 3
    assert lost(cores, pairs) == 2 * 6
    core = np.full(200, -1)
    for number, members in enumerate(cores):
        core[members] = number
    inside = pairs[core[pairs[:, 0]] == core[pairs[:, 1]]]
    assert len(np.unique(connected_components(200, *inside.T))) == 3


def city(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places and pairs of a city, sorted by place: six streets of `length` images to the east, and
    one of 101 to the north at every 40th image; crossings, 20 images apart, are of four pairs."""
    east, north, pairs, count = [], [], [], 0
    crossing: dict[tuple[int, int], list[np.ndarray]] = {}
    along = [(np.arange(length), np.full(length, 20 * street)) for street in range(6)]
    across = [(np.full(101, start), np.arange(101)) for start in range(0, length, 40)]
    for x, y in along + across:
        rows = count + np.arange(len(x))
        count += len(x)
        east, north, pairs = [*east, x], [*north, y], [*pairs, chain(rows)]
        for place in np.flatnonzero((x % 40 == 0) & (y % 20 == 0)).tolist():
            near = rows[[place, place - 1 if place else 1]]
            crossing.setdefault((int(x[place]), int(y[place])), []).append(near)
    pairs += [np.stack(np.meshgrid(*near), axis=-1).reshape(-1, 2) for near in crossing.values()]
    places = np.stack([np.concatenate(east), np.concatenate(north)], axis=1)
    order = np.lexsort((places[:, 1], places[:, 0]))
    return (*places[order].T, np.argsort(order)[np.concatenate(pairs)])


def tiles_of_city(length: int, bound: int) -> dict[str, list[str]]:
    """Images of each tile; their ids, which begin with their place, are the same at any length."""
    east, north, pairs = city(length)
    twin = np.concatenate([[0], (np.diff(east) == 0) & (np.diff(north) == 0)])
    places = zip(east.tolist(), north.tolist(), twin.tolist(), strict=True)
    ids = [f"{x:04x}{y:04x}{second:08x}{0:016x}" for x, y, second in places]
    latitude, longitude = 48.0 + STEP * north, 16.0 + 1.5 * STEP * east
    first, second = np.sort(pairs, axis=1).T
    tiles = plan_tiles(ids, latitude, longitude, first, second, np.full(len(first), 50.0), bound)
    return {tile.name: tile.image_ids for tile in tiles}


@pytest.mark.medium
@pytest.mark.parametrize("bound", [60, 100, 150])
def test_a_city_that_grows_by_a_tenth_at_one_end_keeps_all_tiles_that_are_far(bound: int) -> None:
    before, after = tiles_of_city(400, bound), tiles_of_city(440, bound)
    western = [name for name, ids in before.items() if int(max(ids)[:4], 16) < 0.75 * 400]
    assert len(western) >= len(before) / 2 >= 10
    assert all(after.get(name) == before[name] for name in western)
    for tiles, length in ((before, 400), (after, 440)):
        assert len(tiles) <= 1.5 * len(city(length)[0]) / bound
