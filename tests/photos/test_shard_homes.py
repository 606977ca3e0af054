"""Where the images of a block lie: they stay in their shard when others come and go."""

from __future__ import annotations

import h3
import pyarrow as pa
import pytest

from vladmap.photos.shard_homes import HOMES, Home, homes_of, homes_table, placed

A, B, C = sorted(h3.grid_ring(h3.latlng_to_cell(48.2, 16.37, 8), 1))[:3]


def ids(count: int) -> list[str]:
    return [f"{number:03d}" for number in range(count)]


def members(shards: dict[tuple[str, int], list[tuple[str, str]]]) -> dict[tuple[str, int], str]:
    return {shard: " ".join(image for _, image in images) for shard, images in shards.items()}


def test_a_block_is_cut_by_cell_into_shards_of_at_most_so_many() -> None:
    shards, homes = placed({A: ids(7), B: ids(2)}, [], 3, joining=False)
    assert members(shards) == {
        (A, 0): "000 001 002",
        (A, 1): "003 004 005",
        (A, 2): "006",
        (B, 0): "000 001",
    }
    assert homes == [
        Home(A, "", A, 0), Home(A, "003", A, 1), Home(A, "006", A, 2), Home(B, "", B, 0),
    ]  # fmt: skip


def test_an_image_that_leaves_moves_none_and_returns_to_where_it_was() -> None:
    images = {A: ids(7), B: ids(2)}
    before, homes = placed(images, [], 3, joining=False)
    after, same = placed({**images, A: ids(7)[1:]}, homes, 3, joining=False)
    assert members(after) == {**members(before), (A, 0): "001 002"}
    assert same == homes
    assert placed(images, same, 3, joining=False) == (before, homes)


def test_a_shard_that_has_come_to_hold_too_much_gives_the_rest_to_new_ones() -> None:
    """Of seven images three were not there at first: 000 and 001 lay with 002 and 003."""
    _, homes = placed({A: ["002", "003", "005", "006"]}, [], 2, joining=False)
    shards, homes = placed({A: ids(7)}, homes, 2, joining=False)
    assert members(shards) == {(A, 0): "000 001", (A, 1): "005 006", (A, 2): "002 003",
                               (A, 3): "004"}  # fmt: skip
    assert placed({A: ids(7)}, homes, 2, joining=False) == (shards, homes)


def test_a_new_cell_gets_shards_after_those_of_its_name() -> None:
    before, homes = placed({A: ids(2)}, [], 3, joining=True)
    after, more = placed({A: ids(2), C: ids(4)}, homes, 3, joining=True)
    assert members(after) == {**members(before), (C, 0): "000 001 002", (C, 1): "003"}
    assert set(homes) < set(more)


def test_sparse_cells_keep_their_common_name_when_one_has_too_few_to_choose_it_again() -> None:
    """21 cells in seven of the next resolution, of four images each: half of a shard of eight, so
    each of the seven has a shard. Of three they would go to one that is coarser still."""
    coarse = h3.latlng_to_cell(48.2, 16.37, 6)
    groups = [sorted(h3.cell_to_children(each, 8))[:3] for each in h3.cell_to_children(coarse, 7)]
    images = {
        cell: [f"{cell}-{number}" for number in range(2 if cell == group[0] else 1)]
        for group in groups
        for cell in group
    }
    before, homes = placed(images, [], 8, joining=True)
    assert {name for name, _ in before} == set(h3.cell_to_children(coarse, 7))
    gone = groups[3][1]
    without = {cell: images for cell, images in images.items() if cell != gone}
    after, _ = placed(without, homes, 8, joining=True)
    changed = {shard for shard in before if before[shard] != after.get(shard)}
    assert changed == {(h3.cell_to_parent(gone, 7), 0)}
    anew, _ = placed(without, [], 8, joining=True)
    assert set(anew) != set(after)  # what the table is for


def test_homes_are_read_back_and_a_table_of_other_things_is_refused() -> None:
    homes = [Home(A, "", A, 0), Home(A, "003", B, 1), Home("none", "", "none", 0)]
    assert homes_of(homes_table(homes)) == homes
    bad = [Home("../../etc", "", A, 0), Home(A, "", "x/y", 0), Home(A, "", A, -1)]
    for home in bad:
        with pytest.raises(ValueError, match=r"no cells|not the number"):
            homes_of(homes_table([home]))
    with pytest.raises(ValueError, match="columns"):
        homes_of(pa.table({"cell": [A]}))
    nothing = dict.fromkeys(HOMES.names, None)
    with pytest.raises(ValueError, match="no cells"):
        homes_of(pa.Table.from_pylist([nothing], schema=HOMES))
