import h3
import numpy as np
import pytest
import shapely

from vladmap.photos.cells import assign_cells, cell_outlines, ring
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
