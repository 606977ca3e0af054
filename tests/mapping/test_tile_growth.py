"""Tiles of a collection that grows: what is there stays, what is new joins it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from vladmap.mapping.graph import connected_components
from vladmap.mapping.tile_growth import GROWN, TilePlan, grow_tiles
from vladmap.mapping.tiles import Tile, plan_tiles

BOUND = 50

Photographs = list[tuple[str, float]]
"""(image_id, place along one street in metres)."""


def drive(name: str, places: Sequence[float]) -> Photographs:
    return [(f"{name}{number:04d}".ljust(32, "0"), at) for number, at in enumerate(places)]


def planned(photographs: Photographs, before: Sequence[Tile] = (), reach: float = 7.0) -> TilePlan:
    """The plan of photographs that have a pair with all within `reach` metres."""
    ids, at, first, second = linked(photographs, reach)
    degrees = 48.0 + 9e-6 * at
    weight = np.full(len(first), 50.0)
    return grow_tiles(before, ids, degrees, np.full(len(at), 16.0), first, second, weight, BOUND)


def linked(
    photographs: Photographs, reach: float = 7.0
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    ordered = sorted(photographs)
    at = np.array([place for _, place in ordered])
    first, second = np.nonzero(np.triu(np.abs(at[:, None] - at) <= reach, 1))
    return [image for image, _ in ordered], at, first, second


def cores(tiles: Sequence[Tile]) -> dict[str, list[str]]:
    return {tile.name: np.array(tile.image_ids)[tile.core].tolist() for tile in tiles}


def tile_of(tiles: Sequence[Tile]) -> dict[str, str]:
    return {image: name for name, images in cores(tiles).items() for image in images}


STREET = drive("a", np.arange(0.0, 900.0, 3.0).tolist())


def first_plan() -> list[Tile]:
    return planned(STREET).tiles


def test_without_a_plan_the_tiles_are_those_of_a_first_cut() -> None:
    ids, at, first, second = linked(STREET)
    tiles = plan_tiles(
        ids,
        48.0 + 9e-6 * at,
        np.full(len(at), 16.0),
        first,
        second,
        np.full(len(first), 50.0),
        BOUND,
    )
    plan = planned(STREET)
    assert len(plan.opened) == len(tiles) > 5
    assert cores(plan.tiles) == cores(tiles)


def test_a_plan_of_which_nothing_has_changed_stays_as_it_is() -> None:
    before = first_plan()
    plan = planned(STREET, before)
    assert sorted(plan.kept) == [tile.name for tile in before]
    assert not plan.grown
    assert not plan.opened
    assert not plan.given_up


def test_photographs_at_one_end_change_the_tile_there_and_no_other() -> None:
    more = STREET + drive("b", np.arange(900.0, 920.0, 4.0).tolist())
    before = first_plan()
    plan = planned(more, before)
    assert plan.grown == [tile_of(before)[STREET[-1][0]]]
    assert len(plan.kept) == len(before) - 1


def test_a_second_drive_joins_the_tiles_it_passes_and_moves_no_photograph_of_the_first() -> None:
    second = drive("b", np.arange(1.0, 900.0, 30.0).tolist())
    before = first_plan()
    plan = planned(STREET + second, before)
    assert not plan.opened
    assert not plan.given_up
    now = tile_of(plan.tiles)
    assert {image: now[image] for image, _ in STREET} == tile_of(before)
    for image, at in second:
        near = {now[other] for other, place in STREET if abs(place - at) <= 7.0}
        assert now[image] in near


def check(plan: TilePlan, photographs: Photographs) -> None:
    """Every photograph in one core, cores bounded and connected by their own pairs, and a plan that
    stays as it is when nothing more is new."""
    again = planned(photographs, plan.tiles)
    assert (again.grown, again.opened, again.given_up) == ([], [], {})
    held = [image for images in cores(plan.tiles).values() for image in images]
    assert sorted(held) == sorted(image for image, _ in photographs)
    ids, _, first, second = linked(photographs)
    for tile in plan.tiles:
        assert tile.core.sum() <= BOUND
        assert len(tile.image_ids) <= GROWN * BOUND
        inside = np.isin(ids, np.array(tile.image_ids)[tile.core])
        both = inside[first] & inside[second]
        label = connected_components(len(ids), first[both], second[both])
        assert len(np.unique(label[inside])) == 1


@pytest.mark.parametrize("share", [0.3, 1.0, 3.0])
def test_where_a_tile_is_full_others_are_opened_or_it_is_cut_anew(share: float) -> None:
    places = np.random.default_rng(4).uniform(0.0, 200.0, int(share * 67))
    photographs = STREET + drive("b", places.tolist())
    before = first_plan()
    plan = planned(photographs, before)
    check(plan, photographs)
    assert bool(plan.given_up or plan.opened) == (share > 0.5)
    assert all("over the bound" in reason for reason in plan.given_up.values())
    far = [tile.name for tile in before if tile_of(before)[STREET[150][0]] == tile.name]
    assert set(far) <= set(plan.kept)


def test_many_photographs_beyond_the_end_open_tiles_and_few_of_them_fill_up_the_last() -> None:
    photographs = STREET + drive("b", np.arange(900.0, 1500.0, 3.0).tolist())
    before = first_plan()
    plan = planned(photographs, before)
    check(plan, photographs)
    assert len(plan.opened) >= 4
    assert not plan.given_up


def test_photographs_that_see_nothing_of_the_map_are_a_tile_of_their_own() -> None:
    photographs = STREET + drive("b", np.arange(5000.0, 5030.0, 3.0).tolist())
    plan = planned(photographs, first_plan())
    assert len(plan.kept) == len(first_plan())
    assert [len(cores(plan.tiles)[name]) for name in plan.opened] == [10]


def test_what_its_own_pairs_do_not_join_to_a_core_any_more_leaves_it() -> None:
    """The street breaks amid a tile: what lies beyond the break goes with the next one."""
    before = first_plan()
    middle = next(iter(sorted(before, key=lambda tile: len(tile.image_ids))))
    places = sorted(dict(STREET)[image] for image in cores(before)[middle.name])
    cut = places[len(places) // 4]
    broken = [(image, at + (100.0 if at > cut else 0.0)) for image, at in STREET]
    plan = planned(broken, before)
    check(plan, broken)
    assert len(cores(plan.tiles)[middle.name]) < len(places)


def test_photographs_that_are_gone_leave_their_tile_and_most_of_them_end_it() -> None:
    before = first_plan()
    name = tile_of(before)[STREET[150][0]]
    gone = cores(before)[name]
    few = [(image, at) for image, at in STREET if image not in gone[10:13]]
    plan = planned(few, before)
    assert name in plan.grown
    assert not plan.given_up
    most = [(image, at) for image, at in STREET if image not in gone[8:]]
    plan = planned(most, before)
    assert list(plan.given_up) == [name]
    check(plan, most)


def test_a_collection_that_is_one_tile_stays_one_until_it_is_a_quarter_over_the_bound() -> None:
    small = STREET[:48]
    before = planned(small).tiles
    assert [tile.name for tile in before] == ["all"]
    assert [tile.name for tile in planned(STREET[:60], before).tiles] == ["all"]
    plan = planned(STREET[:70], before)
    assert list(plan.given_up) == ["all"]
    check(plan, STREET[:70])


def test_tiles_that_only_new_photographs_join_have_images_in_common() -> None:
    """Two streets that saw nothing of each other: without an overlap no merge could join them."""
    apart = [(image, at + (100.0 if at > 450.0 else 0.0)) for image, at in STREET]
    before = planned(apart).tiles
    bridge = apart + drive("b", np.arange(453.0, 547.0, 6.0).tolist())
    plan = planned(bridge, before)
    check(plan, bridge)
    by_name = {tile.name: set(tile.image_ids) for tile in plan.tiles}
    ids, _, first, second = linked(bridge)
    now = tile_of(plan.tiles)
    joined = {
        tuple(sorted((now[ids[a]], now[ids[b]])))
        for a, b in zip(first.tolist(), second.tolist(), strict=True)
        if ids[a][0] == "b" or ids[b][0] == "b"
    }
    seams = [(one, other) for one, other in joined if one != other]
    assert seams
    assert all(len(by_name[one] & by_name[other]) >= 3 for one, other in seams)
