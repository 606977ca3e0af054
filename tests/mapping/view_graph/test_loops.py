"""Odometry chains drives, and loops that agree are told from those that do not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.mapping.view_graph.street import street
from vladmap.mapping.arrays import Array
from vladmap.mapping.view_graph.consistency import largest_clique, loop_sets
from vladmap.mapping.view_graph.graph_tables import graph_tables
from vladmap.mapping.view_graph.odometry import (
    Odometry,
    are_loops,
    drive_odometry,
    pair_poses,
)
from vladmap.mapping.view_graph.solve import solve_pose_graph


def pose_of(yaw_deg: float, centre: list[float]) -> Array:
    """camera_from_world of a camera turned about the vertical, at a place."""
    turn = Rotation.from_euler("z", yaw_deg, degrees=True).as_matrix()
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, -turn @ np.array(centre)
    return pose


def two_drives(count: int = 12) -> tuple[Odometry, Array]:
    """Two drives of photographs each 3 m along the same street, and their true poses.

    The second is 2 m beside the first. Each drive's frame is that of its own first image.
    """
    places = [[0.0, 3.0 * k, 0.0] for k in range(count)] + [
        [2.0, 3.0 * k, 0.0] for k in range(count)
    ]
    true = np.stack([pose_of(5.0 * (k % 3), place) for k, place in enumerate(places)])
    root = np.repeat([0, count], count)
    pose = true @ np.linalg.inv(true[root])
    travelled = np.tile(3.0 * np.arange(count), 2)
    return Odometry(root.astype(np.int64), pose, travelled), true


def between(true: Array, first: list[int], second: list[int], shift: float = 0.0) -> Array:
    """The true second_from_first, or what it seems to be where the first lies farther along."""
    moved = np.eye(4)
    moved[1, 3] = shift
    return true[second] @ moved @ np.linalg.inv(true[first])


def test_neighbours_of_a_drive_are_no_loop_and_photographs_of_no_drive_close_none() -> None:
    sequence, index = np.array([0, 0, 0, 1, -1]), np.array([0, 15, 16, 0, 0])
    first, second = np.array([0, 0, 0, 0]), np.array([1, 2, 3, 4])
    assert are_loops(sequence, index, first, second).tolist() == [False, True, True, False]


def test_odometry_of_exact_pairs_is_the_street_but_for_its_scale() -> None:
    there = street(30)
    pairs = there.matched(there.views())
    located = there.located()
    graph = solve_pose_graph(located, pairs)
    odometry = drive_odometry(located, pairs, pair_poses(pairs, graph))
    assert set(odometry.piece.tolist()) == {0}
    truth = (there.centre - there.centre[0]) @ there.rotation[0].T
    assert np.linalg.norm(odometry.centre - truth, axis=1).max() < 0.5
    way = np.linalg.norm(np.diff(there.centre, axis=0), axis=1).sum()
    assert odometry.travelled[-1] == pytest.approx(way, rel=0.02)


def test_a_drive_without_a_pair_in_its_middle_is_two_pieces() -> None:
    there = street(24)
    views = [
        view for view in there.views() if (int(view.image_id_a) < 12) == (int(view.image_id_b) < 12)
    ]
    pairs = there.matched(views)
    located = there.located()
    graph = solve_pose_graph(located, pairs)
    odometry = drive_odometry(located, pairs, pair_poses(pairs, graph))
    assert odometry.piece.tolist() == [0] * 12 + [12] * 12
    assert odometry.travelled[12] == 0.0


def test_true_loops_outvote_those_of_a_facade_a_street_further() -> None:
    """Eight loops say where the drives lie; three agree with each other on 40 m elsewhere."""
    odometry, true = two_drives()
    first = [0, 1, 2, 3, 4, 5, 6, 7, 2, 3, 4]
    second = [12 + k for k in (0, 1, 2, 3, 4, 5, 6, 7, 3, 4, 5)]
    pose = np.concatenate(
        [between(true, first[:8], second[:8]), between(true, first[8:], second[8:], 40.0)]
    )
    stretch = odometry.piece // 12
    sets = loop_sets(odometry, stretch, np.array(first), np.array(second), pose)
    assert sets.chosen.tolist() == [True] * 8 + [False] * 3
    assert sets.agreeing.tolist() == [7] * 8 + [2] * 3
    assert set(sets.largest.tolist()) == {8}
    assert np.isnan(sets.odometry_sigmas).all()


def test_ends_in_either_order_and_unknown_lengths_are_told_apart() -> None:
    odometry, true = two_drives()
    pose = np.concatenate(
        [between(true, [0, 1], [12, 13]), between(true, [14], [2]), np.full((1, 4, 4), np.nan)]
    )
    first, second = np.array([0, 1, 14, 3]), np.array([12, 13, 2, 15])
    sets = loop_sets(odometry, odometry.piece // 12, first, second, pose)
    assert sets.agreeing.tolist() == [2, 2, 2, 0]
    assert sets.group.tolist() == [0, 0, 0, -1]
    assert sets.chosen.tolist() == [True, True, True, False]


def test_what_odometry_may_have_drifted_is_no_contradiction() -> None:
    """Over 33 m odometry drifts by some two metres; over none it does not."""
    odometry, true = two_drives()
    apart = between(true, [0, 11], [12, 23])
    apart[1] = between(true, [11], [23], 2.5)[0]
    near = np.concatenate([between(true, [0], [12]), between(true, [0], [12], 2.5)])
    stretch = odometry.piece // 12
    far_ends = (np.array([0, 11]), np.array([12, 23]))
    same_ends = (np.array([0, 0]), np.array([12, 12]))
    assert loop_sets(odometry, stretch, *far_ends, apart).agreeing.tolist() == [1, 1]
    assert loop_sets(odometry, stretch, *same_ends, near).agreeing.tolist() == [0, 0]


def test_a_loop_in_one_drive_is_held_against_the_odometry_between_its_ends() -> None:
    odometry, true = two_drives(20)
    pose = np.concatenate([between(true, [0], [17]), between(true, [0], [17], 48.0)])
    ends = (np.array([0, 0]), np.array([17, 17]))
    sets = loop_sets(odometry, np.zeros(40, np.int64), *ends, pose)
    assert sets.odometry_sigmas[0] < 1e-6
    assert sets.odometry_sigmas[1] > 10


@pytest.mark.parametrize("size", [24, 40])
def test_the_largest_clique_is_found_exactly_and_greedily(size: int) -> None:
    """A clique of nine among random edges, of which two in ten are there."""
    rng = np.random.default_rng(size)
    agree = np.triu(rng.random((size, size)) < 0.2, 1)
    hidden = np.sort(rng.permutation(size)[:9])
    agree[np.ix_(hidden, hidden)] = True
    agree = np.triu(agree, 1) | np.triu(agree, 1).T
    assert np.flatnonzero(largest_clique(agree)).tolist() == hidden.tolist()


def test_no_edges_make_a_clique_of_one() -> None:
    assert largest_clique(np.zeros((3, 3), bool)).tolist() == [True, False, False]


def test_tables_hold_only_what_the_graph_holds() -> None:
    there = street(24, drives=2)
    pairs = there.matched(there.views())
    located = there.located()
    graph = solve_pose_graph(located, pairs)
    tables = graph_tables(there.ids, located, pairs, graph)
    assert tables.poses["image_id"].to_pylist() == there.ids
    assert tables.loops.num_rows > 10
    assert min(tables.loops["agreeing"].to_pylist()) >= 1
    none = solve_pose_graph(located, pairs, least=100)
    empty = graph_tables(there.ids, located, pairs, none)
    assert (empty.poses.num_rows, empty.loops.num_rows) == (0, 0)
