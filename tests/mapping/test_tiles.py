"""Tiles: bounded, overlapping, every linked image in one core, stable as a collection grows."""

from __future__ import annotations

import numpy as np

from vladmap.mapping.graph import connected_components
from vladmap.mapping.tiles import Tile, plan_tiles


def street(count: int, start: int = 0, with_gps: bool = True) -> tuple[list[str], np.ndarray]:
    """Ids of a straight street's images, and their latitudes 3 m apart."""
    ids = [f"{number:08x}{0:024x}" for number in range(start, start + count)]
    latitude = 48.0 + 2.7e-5 * np.arange(start, start + count)
    return ids, latitude if with_gps else np.full(count, np.nan)


def plan(ids: list[str], latitude: np.ndarray, max_images: int) -> list[Tile]:
    pairs = [(a, b) for step in (1, 2) for a, b in zip(ids, ids[step:], strict=False)]
    a, b = zip(*pairs, strict=True)
    longitude = np.where(np.isnan(latitude), np.nan, 16.0)
    return plan_tiles(ids, latitude, longitude, a, b, np.full(len(a), 50.0), max_images)


def test_few_images_are_one_tile_even_in_two_parts() -> None:
    ids, latitude = street(10)
    tiles = plan_tiles(
        ids, latitude, latitude * 0, [ids[0], ids[8]], [ids[1], ids[9]], np.ones(2), 20
    )
    assert [tile.image_ids for tile in tiles] == [[ids[0], ids[1], ids[8], ids[9]]]


def test_no_pairs_make_no_tiles() -> None:
    ids, latitude = street(3)
    assert plan_tiles(ids, latitude, latitude, [], [], np.zeros(0), 20) == []


def test_tiles_are_bounded_and_every_image_is_in_one_core() -> None:
    ids, latitude = street(300)
    tiles = plan(ids, latitude, 50)
    assert len(tiles) > 5
    assert all(len(tile.image_ids) <= 50 for tile in tiles)
    cores = [image for tile in tiles for image in np.array(tile.image_ids)[tile.core]]
    assert sorted(cores) == ids


def test_tiles_are_few_though_they_are_cut_along_a_grid() -> None:
    """At most 1.5 times images / bound, or as few as cores of four fifths of a bound must be."""
    for count in range(60, 600, 35):
        for start in (0, 13):
            few = max(-(-count // 40), int(1.5 * count / 50))
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


def test_growth_elsewhere_leaves_a_tile_as_it_is() -> None:
    before = {tile.name: tile.image_ids for tile in plan(*street(1200), 50)}
    after = {tile.name: tile.image_ids for tile in plan(*street(1230), 50)}
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


def pieces(tile: Tile, pairs: list[tuple[str, str]], core: bool) -> int:
    """Connected components of a tile's images, or of its core, by the pairs among them."""
    ids = [i for i, inside in zip(tile.image_ids, tile.core, strict=True) if inside or not core]
    row = {image: number for number, image in enumerate(ids)}
    ends = np.array([(row[a], row[b]) for a, b in pairs if a in row and b in row], np.int64)
    return len(np.unique(connected_components(len(ids), *ends.reshape(-1, 2).T)))


def hairpin(count: int = 240) -> tuple[list[str], np.ndarray, np.ndarray, list[tuple[str, str]]]:
    """A street that goes north and comes back 15 m east: every square holds two ways of it."""
    ids = [f"{number:08x}{0:024x}" for number in range(count)]
    way = np.arange(count)
    latitude = 48.0 + 2.7e-5 * np.minimum(way, count - 1 - way)
    longitude = 16.0 + np.where(way < count // 2, 0.0, 0.0002)
    pairs = [(a, b) for step in (1, 2, 3) for a, b in zip(ids, ids[step:], strict=False)]
    return ids, latitude, longitude, pairs


def test_a_cut_leaves_no_fragments_in_a_tile() -> None:
    """Issue 19, 0: a square that holds pieces of two streets is no tile; each piece goes on."""
    ids, latitude, longitude, pairs = hairpin()
    a, b = zip(*pairs, strict=True)
    tiles = plan_tiles(ids, latitude, longitude, a, b, np.full(len(a), 50.0), 60)
    assert len(tiles) >= 4
    for tile in tiles:
        assert len(tile.image_ids) <= 60
        assert pieces(tile, pairs, core=True) == 1
        assert pieces(tile, pairs, core=False) == 1
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
    false = [(ids[n], ids[239 - n]) for n in range(100)]
    a, b = zip(*pairs, *false, strict=True)
    weight = np.array([50.0] * len(pairs) + [1000.0] * len(false))
    for tile in plan_tiles(ids, latitude, longitude, a, b, weight, 60):
        core = np.flatnonzero(np.isin(ids, np.array(tile.image_ids)[tile.core]))
        for end, step in ((core.min(), -1), (core.max(), 1)):
            if 0 <= end + step < len(ids):
                assert ids[end + step] in tile.image_ids
