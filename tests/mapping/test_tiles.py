"""Tiles: bounded, overlapping, every linked image in one core, stable as a collection grows."""

from __future__ import annotations

import numpy as np
import pytest

from vladmap.mapping.graph import connected_components
from vladmap.mapping.tiles import Tile, plan_tiles


def street(count: int, start: int = 0, with_gps: bool = True) -> tuple[list[str], np.ndarray]:
    """Ids of a straight street's images, and their latitudes 3 m apart."""
    ids = [f"{number:08x}{0:024x}" for number in range(start, start + count)]
    latitude = 48.0 + 2.7e-5 * np.arange(start, start + count)
    return ids, latitude if with_gps else np.full(count, np.nan)


def neighbours(count: int, steps: int) -> np.ndarray:
    """Pairs (m, 2) of a street's images with the next `steps` of them."""
    return np.concatenate(
        [np.stack([np.arange(count - s), np.arange(s, count)], axis=1) for s in range(1, steps + 1)]
    )


def plan(ids: list[str], latitude: np.ndarray, max_images: int) -> list[Tile]:
    first, second = neighbours(len(ids), 2).T
    longitude = np.where(np.isnan(latitude), np.nan, 16.0)
    return plan_tiles(
        ids, latitude, longitude, first, second, np.full(len(first), 50.0), max_images
    )


def test_few_images_are_one_tile_even_in_two_parts() -> None:
    ids, latitude = street(10)
    first, second = np.array([[0, 1], [8, 9]]).T
    tiles = plan_tiles(ids, latitude, latitude * 0, first, second, np.ones(2), 20)
    assert [tile.image_ids for tile in tiles] == [[ids[0], ids[1], ids[8], ids[9]]]


def test_no_pairs_make_no_tiles() -> None:
    ids, latitude = street(3)
    none = np.zeros(0, np.int64)
    assert plan_tiles(ids, latitude, latitude, none, none, np.zeros(0), 20) == []


def test_tiles_are_bounded_and_every_image_is_in_one_core() -> None:
    ids, latitude = street(300)
    tiles = plan(ids, latitude, 50)
    assert len(tiles) > 5
    assert all(len(tile.image_ids) <= 50 for tile in tiles)
    cores = [image for tile in tiles for image in np.array(tile.image_ids)[tile.core]]
    assert sorted(cores) == ids


def test_tiles_are_few_though_they_are_cut_along_a_grid() -> None:
    """At most 1.5 times images / bound, or as few as cores of 0.85 of a bound must be."""
    for count in range(60, 600, 35):
        for start in (0, 13):
            few = max(-(-count // 42), int(1.5 * count / 50))
            assert len(plan(*street(count, start), 50)) <= few


def test_images_at_one_place_are_cut_all_the_same() -> None:
    """As where GPS was frozen."""
    ids, latitude = street(120)
    tiles = plan(ids, np.full_like(latitude, latitude[0]), 50)
    assert all(len(tile.image_ids) <= 50 for tile in tiles)
    assert sum(int(tile.core.sum()) for tile in tiles) == 120


def test_neighbouring_tiles_share_images() -> None:
    tiles = plan(*street(300), 50)
    for tile in tiles:
        others = {image for other in tiles if other is not tile for image in other.image_ids}
        assert len(others & set(tile.image_ids)) >= 2


@pytest.mark.parametrize("more", [30, 120])
def test_growth_elsewhere_leaves_a_tile_as_it_is(more: int) -> None:
    before = {tile.name: tile.image_ids for tile in plan(*street(1200), 50)}
    after = {tile.name: tile.image_ids for tile in plan(*street(1200 + more), 50)}
    same = [name for name in before if after.get(name) == before[name]]
    assert len(before) > 30
    assert len(same) >= len(before) - 4


def test_images_without_gps_go_with_their_partners() -> None:
    ids, latitude = street(300)
    latitude[::7] = np.nan
    tiles = plan(ids, latitude, 50)
    cores = [image for tile in tiles for image in np.array(tile.image_ids)[tile.core]]
    assert sorted(cores) == ids


def test_a_component_without_any_gps_is_cut_all_the_same() -> None:
    tiles = plan(*street(120, with_gps=False), 50)
    assert all(len(tile.image_ids) <= 50 for tile in tiles)
    assert sum(int(tile.core.sum()) for tile in tiles) == 120


def pieces(tile: Tile, ids: list[str], pairs: np.ndarray, core: bool) -> int:
    """Connected components of a tile's images, or of its core, by the pairs among them."""
    held = [i for i, inside in zip(tile.image_ids, tile.core, strict=True) if inside or not core]
    inside = np.isin(ids, held)
    first, second = pairs[inside[pairs].all(axis=1)].T
    return len(np.unique(connected_components(len(ids), first, second)[inside]))


def hairpin(count: int = 240) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """A street that goes north and comes back 15 m east: every square holds two ways of it."""
    ids = [f"{number:08x}{0:024x}" for number in range(count)]
    way = np.arange(count)
    latitude = 48.0 + 2.7e-5 * np.minimum(way, count - 1 - way)
    longitude = 16.0 + np.where(way < count // 2, 0.0, 0.0002)
    return ids, latitude, longitude, neighbours(count, 3)


def test_a_cut_leaves_no_fragments_in_a_tile() -> None:
    """Issue 19, 0: a square that holds pieces of two streets is no tile; each piece goes on."""
    ids, latitude, longitude, pairs = hairpin()
    tiles = plan_tiles(ids, latitude, longitude, *pairs.T, np.full(len(pairs), 50.0), 60)
    assert len(tiles) >= 4
    for tile in tiles:
        assert len(tile.image_ids) <= 60
        assert pieces(tile, ids, pairs, core=True) == 1
        assert pieces(tile, ids, pairs, core=False) == 1
    cores = [image for tile in tiles for image in np.array(tile.image_ids)[tile.core]]
    assert sorted(cores) == ids
    assert len({tile.name for tile in tiles}) == len(tiles)


def test_a_small_fragment_joins_the_tile_that_it_has_most_pairs_with() -> None:
    # Nine tenths of the street fill their squares; what a grid line cuts off is no tile of its own.
    for start in range(0, 40, 7):
        ids, latitude = street(100, start)
        tiles = plan(ids, latitude, 60)
        assert min(int(tile.core.sum()) for tile in tiles) >= 10


def test_the_overlap_is_of_those_with_most_pairs_not_with_most_inliers() -> None:
    """Issue 19, 0: one pair of an alias has more inliers than all pairs of a neighbour."""
    ids, latitude, longitude, pairs = hairpin()
    longitude += np.where(longitude > 16.0, 0.01, 0.0)  # its two ways are in different tiles
    # Photographs of one way look like those of the other, in a thousand matches each.
    false = np.stack([np.arange(100), 239 - np.arange(100)], axis=1)
    first, second = np.concatenate([pairs, false]).T
    weight = np.array([50.0] * len(pairs) + [1000.0] * len(false))
    for tile in plan_tiles(ids, latitude, longitude, first, second, weight, 60):
        core = np.flatnonzero(np.isin(ids, np.array(tile.image_ids)[tile.core]))
        for end, step in ((core.min(), -1), (core.max(), 1)):
            if 0 <= end + step < len(ids):
                assert ids[end + step] in tile.image_ids
