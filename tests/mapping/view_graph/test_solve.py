"""The pose graph gives first poses that are right to about a metre and a degree."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from tests.mapping.view_graph.street import ORIGIN, Street, street
from vladmap.geodesy.wgs84 import enu_to_geodetic, geodetic_to_enu
from vladmap.mapping.arrays import Array
from vladmap.mapping.check import best_similarity
from vladmap.mapping.view_graph.solve import Located, PoseGraph, solve_pose_graph


def solved(there: Street, located: Located, views: list | None = None) -> PoseGraph:
    return solve_pose_graph(located, there.matched(there.views() if views is None else views))


def errors_m(there: Street, graph: PoseGraph) -> Array:
    """Distances from the truth where GPS puts the map, (n,)."""
    (origin,) = graph.origin.values()
    truth = geodetic_to_enu(enu_to_geodetic(there.centre, ORIGIN), origin)
    return np.linalg.norm(graph.position - truth, axis=1)


def turns_deg(there: Street, graph: PoseGraph) -> Array:
    apart = np.einsum("nij,nkj->nik", graph.rotation, there.rotation)
    return np.degrees(Rotation.from_matrix(apart).magnitude())


def shape_errors_m(there: Street, graph: PoseGraph) -> Array:
    """Distances from the truth after the best similarity, (n,)."""
    scale, turn, shift = best_similarity(graph.position, there.centre)
    return np.linalg.norm(scale * graph.position @ turn.T + shift - there.centre, axis=1)


def test_exact_pairs_and_gps_give_the_exact_street() -> None:
    there = street(30)
    graph = solved(there, there.located())
    assert (graph.support >= 2).all()
    assert errors_m(there, graph).max() < 0.2
    assert turns_deg(there, graph).max() < 1.0


def test_two_drives_with_gps_noise_are_posed_far_better_than_the_noise() -> None:
    there = street(40, drives=2)
    graph = solved(there, there.located(noise_m=4.0, seed=3))
    assert shape_errors_m(there, graph).max() < 1.5
    assert np.median(errors_m(there, graph)) < 2.5


def test_a_drive_whose_gps_is_twenty_metres_off_lies_where_its_pairs_say() -> None:
    there = street(40, drives=2)
    shift = np.where(there.drive[:, None] == 1, [14.0, 14.0, 0.0], 0.0)
    graph = solved(there, there.located(noise_m=2.0, shift=shift, seed=5))
    apart = graph.position[40:] - graph.position[:40]
    truth = there.centre[40:] - there.centre[:40]
    assert np.linalg.norm(apart - truth, axis=1).max() < 1.5


def test_six_positions_that_jump_by_35_m_do_not_tear_the_drive() -> None:
    there = street(60)
    jumping = (there.index >= 20) & (there.index < 26)
    shift = np.where(jumping[:, None], [25.0, -25.0, 0.0], 0.0)
    graph = solved(there, there.located(noise_m=2.0, shift=shift, seed=2), there.views(reach=9))
    assert shape_errors_m(there, graph).max() < 1.5


def test_a_street_whose_gps_is_off_by_20_m_is_not_torn_from_the_one_before() -> None:
    there = street(60)
    shift = np.where(there.index[:, None] >= 33, [-16.0, 12.0, 0.0], 0.0)
    graph = solved(there, there.located(noise_m=2.0, shift=shift, seed=4), there.views(reach=9))
    steps = np.diff(graph.position, axis=0) - np.diff(there.centre, axis=0)
    assert np.linalg.norm(steps, axis=1).max() < 1.5


def test_without_gps_the_shape_is_right_and_not_said_to_be_metric() -> None:
    there = street(30)
    graph = solved(there, there.located(known=False))
    assert list(graph.metric.values()) == [False]
    assert shape_errors_m(there, graph).max() < 0.5


def test_facades_that_look_alike_do_not_fold_the_street() -> None:
    """A tenth of the pairs join photographs 28 m apart as if they were a step apart."""
    there = street(40, straight=True)
    views = there.views()
    false = [there.alias(a, a + 7, 1) for a in range(0, 32, 2)]
    assert min(len(view.inliers) for view in false) > 100
    graph = solved(there, there.located(noise_m=3.0, seed=1), [*views, *false])
    assert shape_errors_m(there, graph).max() < 2.0


def test_streets_that_no_pair_joins_are_posed_each_by_itself() -> None:
    there = street(20, drives=2)
    views = [
        view for view in there.views() if (view.image_id_a < "0020") == (view.image_id_b < "0020")
    ]
    graph = solved(there, there.located(), views)
    assert len(graph.origin) == 2
    assert len(np.unique(graph.component[:20])) == len(np.unique(graph.component[20:])) == 1


def test_a_photograph_without_pairs_has_no_pose() -> None:
    there = street(20)
    views = [view for view in there.views() if "0007" not in (view.image_id_a, view.image_id_b)]
    graph = solved(there, there.located(), views)
    assert graph.component[7] == -1
    assert np.isnan(graph.position[7]).all()
    assert (np.delete(graph.component, 7) >= 0).all()


def test_same_inputs_give_same_bytes() -> None:
    there = street(20)
    one, other = (solved(there, there.located(noise_m=2.0)) for _ in range(2))
    assert one.position.tobytes() == other.position.tobytes()
    assert one.rotation.tobytes() == other.rotation.tobytes()


def test_without_any_gps_the_graph_keeps_its_size() -> None:
    """The smaller all is, the smaller are the residuals: it must not shrink to nothing."""
    there = street(30, drives=2)
    graph = solved(there, there.located(known=False))
    assert not any(graph.metric.values())
    assert shape_errors_m(there, graph).max() < 0.5
    step = np.linalg.norm(np.diff(graph.position[:30], axis=0), axis=1)
    # The usual pair is 5 m long by the guess, and two steps of the street.
    assert 1.5 < np.median(step) < 4.0
