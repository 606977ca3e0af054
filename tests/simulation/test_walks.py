"""Ways through a street network: along open streets, in the right-hand lane, back to the start."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vladmap.simulation.journeys import SPACING, journey
from vladmap.simulation.layout import draw_layout, ends_of, streets_of
from vladmap.simulation.walks import Network, lane_of

PITCH = (74.0, 88.0)


def network(seed: int = 0, blocks: tuple[int, int] = (3, 3)) -> Network:
    return Network(blocks, draw_layout(seed, blocks).closed, PITCH)


def test_a_grid_of_two_by_one_blocks_has_seven_streets() -> None:
    assert len(streets_of((2, 1))) == 7
    assert ends_of((1, 0, 0)) == ((1, 0), (2, 0))
    assert ends_of((1, 0, 1)) == ((1, 0), (1, 1))


@pytest.mark.parametrize("seed", range(8))
def test_every_crossing_can_be_reached_in_spite_of_the_dead_ends(seed: int) -> None:
    streets = network(seed)
    assert draw_layout(seed, (3, 3)).closed
    reached, ahead = {(0, 0)}, [(0, 0)]
    while ahead:
        for node in streets.next[ahead.pop()]:
            if node not in reached:
                reached.add(node)
                ahead.append(node)
    assert reached == set(streets.next)


@pytest.mark.parametrize("seed", range(8))
def test_drives_turn_back_in_dead_ends_alone_and_begin_where_others_drove(seed: int) -> None:
    streets, rng = network(seed), np.random.default_rng(seed)
    walks = [streets.tour(900.0, rng), streets.laps(900.0, rng), streets.back(900.0, rng)]
    for number, walk in enumerate(walks):
        assert streets.length(walk) >= 900.0
        for before, here, after in zip(walk, walk[1:], walk[2:], strict=False):
            assert after in streets.next[here]
            assert before != after or len(streets.next[here]) == 1
        if number:
            driven = {leg for other in walks[:number] for leg in itertools.pairwise(other)}
            # Laps may have no more than one street in common with the tour.
            begun = walk[:2] if number == 1 else walk[:3]
            assert set(itertools.pairwise(begun)) <= driven


def test_a_tour_comes_back_to_where_it_began_going_the_same_way() -> None:
    streets = network()
    walk = streets.tour(1500.0, np.random.default_rng(3))
    assert list(itertools.pairwise(walk)).count((walk[0], walk[1])) >= 2


def test_laps_go_round_the_same_streets_more_than_once() -> None:
    streets, rng = network(), np.random.default_rng(0)
    streets.tour(900.0, rng)
    walk = streets.laps(900.0, rng)
    counts = [list(itertools.pairwise(walk)).count(leg) for leg in itertools.pairwise(walk)]
    assert max(counts) >= 2
    assert len(set(walk)) <= 8  # two blocks by two have a ring of eight crossings


def test_the_way_back_meets_the_others_head_on() -> None:
    streets, rng = network(), np.random.default_rng(1)
    tour = set(itertools.pairwise(streets.tour(900.0, rng)))
    back = list(itertools.pairwise(streets.back(900.0, rng)))
    against = [leg for leg in back if leg[::-1] in tour and leg not in tour]
    assert len(against) >= len(back) // 3


def test_the_lane_lies_two_metres_to_the_right_and_is_unbroken() -> None:
    # North, right turn to the east, left turn to the north, and back again from a dead end.
    places = np.array([[0, 0], [0, 100], [100, 100], [100, 200], [100, 100]], float)
    path, heading, leg = lane_of(places)
    steps = np.diff(path, axis=0)
    assert np.linalg.norm(steps, axis=1).max() < 0.2
    moved = np.degrees(np.arctan2(*steps.T))
    turned = (moved - heading[:-1] + 180.0) % 360.0 - 180.0
    assert np.abs(turned).max() < 6.0  # 0.2 m of the tightest turn, of 2 m
    north = (leg == 0) & (path[:, 1] < 80)
    np.testing.assert_allclose(path[north][:, 0], 2.0)
    east = (leg == 1) & (path[:, 0] > 20) & (path[:, 0] < 80)
    np.testing.assert_allclose(path[east][:, 1], 98.0)
    south = (leg == 3) & (path[:, 1] < 190)
    np.testing.assert_allclose(path[south][:, 0], 98.0)
    np.testing.assert_allclose(heading[south] % 360.0, 180.0)


def test_photographs_are_three_metres_apart_and_turn_little_from_one_to_the_next() -> None:
    streets, rng = network(), np.random.default_rng(2)
    drive = journey(streets, streets.tour(1000.0, rng), 300, rng)
    assert len(drive) == 300
    steps = np.linalg.norm(np.diff(drive.poses.centre, axis=0), axis=1)
    assert np.median(steps) == pytest.approx(SPACING, abs=0.1)
    assert steps.max() < SPACING + 0.3
    turns = (np.diff(drive.poses.headings()) + 180.0) % 360.0 - 180.0
    assert np.abs(turns).max() < 20.0
    np.testing.assert_allclose(np.diff(drive.seconds), SPACING / 8.0)


def test_a_walk_too_short_for_its_photographs_is_told() -> None:
    streets, rng = network(), np.random.default_rng(2)
    with pytest.raises(ValueError, match="too short"):
        journey(streets, streets.tour(100.0, rng), 300, rng)
