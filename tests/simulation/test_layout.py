"""What a street network repeats is truly the same, and where it has no houses there are none."""

from __future__ import annotations

import numpy as np
import pytest

from vladmap.simulation.camera import Camera, Poses
from vladmap.simulation.city import CLOSED_BEFORE, City, build_city
from vladmap.simulation.conditions import Conditions
from vladmap.simulation.layout import Layout, draw_layout
from vladmap.simulation.render import depth_map, render

PITCH = (74.0, 88.0)
# Even light: no shadows, no haze.
OVERCAST = Conditions(sun_elevation_deg=-1.0, haze_distance_m=1e9, brightness=1.5)
SMALL = Camera(width=160, height=80, fx=300.0, fy=300.0, cx=80.0, cy=40.0)


def test_of_a_city_of_nine_blocks_one_is_a_park_one_a_square_and_two_streets_end() -> None:
    layout = draw_layout(5, (3, 3), repeated=0.4, terraces=0.5)
    assert (len(layout.parks), len(layout.squares), len(layout.closed)) == (1, 1, 2)
    # 25 blocks with the ring around them, 23 of them built; 13 blocks of 4 sides are not alike.
    assert len(layout.repeated) == round(0.4 * 23)
    assert len(layout.terraces) == round(0.5 * 4 * (23 - len(layout.repeated)))
    assert not set(layout.repeated) & (layout.parks | layout.squares)
    assert layout == draw_layout(5, (3, 3), repeated=0.4, terraces=0.5)
    assert layout != draw_layout(6, (3, 3), repeated=0.4, terraces=0.5)


@pytest.fixture(scope="module")
def alike() -> City:
    """Blocks (0, 0) and (1, 0) have the same houses; those on the south side of (0, 1) are one."""
    layout = Layout(
        parks=frozenset({(1, 1)}),
        closed=frozenset({(0, 0, 1)}),
        repeated={(0, 0): 0, (1, 0): 0},
        terraces=frozenset({(0, 1, 0)}),
    )
    return build_city(seed=9, blocks=(2, 2), layout=layout)


def before(*places: tuple[float, float]) -> Poses:
    """Looking north from 14 m before fronts that face south, above lamps, below eaves."""
    count = len(places)
    centres = np.array([[east, north - 14.0, 7.5] for east, north in places])
    return Poses.looking(centres, np.zeros(count), np.zeros(count), np.zeros(count))


@pytest.mark.medium
def test_repeated_blocks_are_equal_pixel_by_pixel(alike: City) -> None:
    # The same place before the south side of each; then where the houses differ.
    poses = before(*[(20.0 + PITCH[0] * block, 7.0) for block in (0, 1)], (20.0 - PITCH[0], 7.0))
    first, second, other = render(alike, poses, SMALL, OVERCAST).int()
    # Rounding of float32 coordinates aside, which moves a texture by micrometres.
    assert (second - first).abs().max() <= 3
    assert (other - first).abs().double().mean() > 10


@pytest.mark.medium
def test_the_houses_of_a_terrace_are_equal_pixel_by_pixel(alike: City) -> None:
    fronts = alike.fronts
    south = np.abs(fronts[:, 0, 1] - fronts[:, 1, 1]) < 1e-6
    line = (fronts[:, 0, 1] > PITCH[1] + 6.0) & (fronts[:, 0, 1] < PITCH[1] + 9.0)
    here = (fronts[:, 0, 0] > 0.0) & (fronts[:, 1, 0] < PITCH[0]) & south & line
    terrace = fronts[here]
    assert len(terrace) == 6  # 60 m of houses of 10.5 m
    middle = terrace[:, :2].mean(1)
    poses = before(*[(float(east), float(north)) for east, north, _ in middle])
    width = float(np.linalg.norm(terrace[0, 1] - terrace[0, 0]))
    half = int(0.3 * width * 300 / 14)
    narrow = Camera(2 * half, 80, 300.0, 300.0, float(half), 40.0)
    # The middle ones have houses on both sides, whose parts may be seen past the front.
    pictures = render(alike, poses[1:-1], narrow, OVERCAST).int()
    assert (pictures[1:] - pictures[:1]).abs().max() <= 3


@pytest.mark.medium
def test_a_park_is_open_and_a_closed_street_ends_at_a_house(alike: City) -> None:
    # Northwards along the closed street from crossing (0, 0): the house that closes it.
    at = Poses.looking(np.array([[0.0, 8.0, 9.0]]), np.zeros(1), np.zeros(1), np.zeros(1))
    depth = depth_map(alike, at, SMALL)[0]
    assert float(depth[40, 80]) == pytest.approx(PITCH[1] - CLOSED_BEFORE - 8.0, abs=1.5)
    # Southwards from the crossing behind it: the house's back, 11 m deep.
    at = Poses.looking(np.array([[0.0, 88.0, 9.0]]), np.full(1, 180.0), np.zeros(1), np.zeros(1))
    back = float(depth_map(alike, at, SMALL)[0][40, 80])
    assert back == pytest.approx(CLOSED_BEFORE - 11.0, abs=1.5)
    # Above the trees across the park: nothing before the houses on its other side.
    over = np.array([[PITCH[0] + 2.0, PITCH[1] + 44.0, 13.0]])
    at = Poses.looking(over, np.full(1, 90.0), np.zeros(1), np.zeros(1))
    assert float(depth_map(alike, at, SMALL)[0].median()) > PITCH[0]
    assert len(alike.trees) > 20
