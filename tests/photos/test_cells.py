from collections import Counter

import h3
import numpy as np
import pytest
import shapely

from vladmap.photos.cells import (
    FEW_CELLS,
    Nearby,
    assign_cells,
    cell_outlines,
    joined_cells,
    ring,
)
from vladmap.schemas.records import NO_CELL


def test_cells_of_known_places_and_none_without_a_position():
    # The example of H3's own documentation: San Francisco at resolution 9.
    assert assign_cells([37.769377], [-122.388903], 9) == ["89283082e73ffff"]
    cells = assign_cells([55.7, None, 0.0, np.nan, 91.0], [13.19, 1.0, 0.0, 1.0, 0.0])
    assert cells[0] == h3.latlng_to_cell(55.7, 13.19, 8)
    assert cells[1:] == [NO_CELL] * 4


def test_both_names_of_the_antimeridian_are_one_cell_and_its_sides_are_neighbours():
    same = assign_cells([-16.8, -16.8], [180.0, -180.0])
    assert same[0] == same[1]
    west, east = assign_cells([-16.8, -16.8], [179.99, -179.99])
    assert east in ring(west, 4)


def test_a_ring_is_sorted_holds_its_cell_and_none_is_alone():
    cell = assign_cells([55.7], [13.19])[0]
    assert len(ring(cell, 1)) == 7
    assert len(ring(cell, 2)) == 19
    assert ring(cell, 2) == sorted(ring(cell, 2))
    assert ring(cell, 0) == [cell]
    assert ring(NO_CELL, 3) == [NO_CELL]


def test_an_outline_holds_its_position_and_is_the_cell_of_its_corners_mean():
    cell = assign_cells([55.7], [13.19])[0]
    outline, nothing = cell_outlines([cell, NO_CELL])
    assert nothing is None
    assert outline.geom_type == "Polygon"
    assert shapely.contains_xy(outline, 13.19, 55.7)
    assert len(shapely.get_coordinates(outline)) == 7  # six corners, the first one again
    assert assign_cells([outline.centroid.y], [outline.centroid.x]) == [cell]


def test_an_outline_across_the_antimeridian_has_a_part_on_each_side_and_its_whole_area():
    across, beside = assign_cells([-16.8, -16.8], [180.0, 179.9])
    parts, whole = cell_outlines([across, beside])
    assert parts.geom_type == "MultiPolygon"
    west, east = parts.geoms
    assert west.bounds[2] == 180.0
    assert east.bounds[0] == -180.0
    assert parts.is_valid
    assert max(west.bounds[2] - west.bounds[0], east.bounds[2] - east.bounds[0]) < 0.02
    assert parts.area == pytest.approx(whole.area, rel=0.01)


def crowd(count: int, seed: int) -> dict[str, int]:
    """Photographs in `count` cells at random in a disk of H3 cells, a dozen in most of them."""
    draw = np.random.default_rng(seed)
    disk = sorted(h3.grid_disk(h3.latlng_to_cell(47.0, 8.0, 8), 12))
    cells = draw.choice(disk, count, replace=False).tolist()
    return dict(zip(cells, draw.choice([1, 12, 12, 90, 110, 700], count).tolist(), strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_cells_of_a_dozen_photographs_share_shards_and_full_ones_do_not(seed: int) -> None:
    counts = crowd(200, seed)
    names = joined_cells(counts, 200)
    assert set(names) == set(counts)
    for cell, name in names.items():
        if 2 * counts[cell] >= 200:
            assert name == cell
        assert name == h3.cell_to_parent(cell, h3.get_resolution(name))
        assert h3.get_resolution(name) in (6, 7, 8)
    shared = Counter(names.values())
    for name, cells in shared.items():
        together = sum(counts[cell] for cell in counts if names[cell] == name)
        if h3.get_resolution(name) == 7:
            assert 2 * together >= 200
        if h3.get_resolution(name) < 8:
            assert cells > 1
    pieces = sum(
        -(-sum(counts[cell] for cell in counts if names[cell] == name) // 200) for name in shared
    )
    assert pieces < 0.7 * sum(-(-count // 200) for count in counts.values())


def test_a_city_of_few_cells_keeps_a_shard_for_each() -> None:
    counts = dict(list(crowd(200, 0).items())[:FEW_CELLS])
    assert joined_cells(counts, 200) == {cell: cell for cell in counts}
    assert joined_cells({"none": 5}, 200) == {"none": "none"}


def test_photographs_without_a_position_share_with_nobody() -> None:
    names = joined_cells({**crowd(60, 1), "none": 3}, 200)
    assert names["none"] == "none"
    assert list(names.values()).count("none") == 1


@pytest.mark.parametrize("seed", range(3))
def test_what_is_one_step_from_a_photographs_cell_is_near_to_its_shard(seed: int) -> None:
    """By brute force over all pairs of cells that touch, whatever they were joined to."""
    counts = crowd(300, seed)
    names = joined_cells(counts, 200)
    nearby: Nearby[str] = Nearby()
    for cell in counts:
        nearby.add(names[cell], cell)
    touching = 0
    for cell in counts:
        found = nearby.near(names[cell])
        assert len(found) == len(set(found))
        beside = set(ring(cell)) & set(counts)
        touching += len(beside) - 1
        assert beside <= set(found)
    assert touching > 200
    assert nearby.near("none") == []
