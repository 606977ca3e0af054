"""Pairs that do not fit the poses of the whole collection are found, true ones are not lost."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tests.mapping.view_graph.street import CAMERA, Street, street
from vladmap.mapping.view_graph import table
from vladmap.mapping.view_graph.fit import PairFit, fit_pairs
from vladmap.mapping.view_graph.solve import solve_pose_graph
from vladmap.mapping.view_graph.table import FITS, Fitted, agrees_with_drives, fit_tables


def fitted(there: Street, views: list, noise_m: float = 3.0) -> PairFit:
    pairs = there.matched(views)
    graph = solve_pose_graph(there.located(noise_m=noise_m, seed=2), pairs)
    return fit_pairs(pairs, graph.rotation, graph.position)


def test_true_pairs_fit_and_agree_with_each_other() -> None:
    there = street(30)
    fit = fitted(there, there.views())
    assert (fit.share > 0.8).all()
    assert (fit.agreement > 0.5).all()
    assert np.median(fit.agreement) > 0.95


def test_a_pair_that_looks_a_step_apart_and_is_seven_contradicts_the_depths_of_others() -> None:
    """Along a straight street its epipolar lines are the true ones: only depths betray it."""
    there = street(40, straight=True)
    views, false = there.views(), there.alias(4, 11, 1)
    fit = fitted(there, [*views, false])
    ordered = sorted([*views, false], key=lambda view: (view.image_id_a, view.image_id_b))
    at = ordered.index(false)
    assert fit.agreement[at] < 0.5
    assert (np.delete(fit.agreement, at) > 0.5).all()


def test_a_pair_that_looks_turned_lies_off_the_epipolar_lines() -> None:
    """Matches between photographs that look in directions sixty degrees apart in truth."""
    there = street(30)
    views = there.views()
    rng = np.random.default_rng(0)
    count = 60
    shared = np.stack([rng.permutation(len(there.seen[2]))[:count],
                       rng.permutation(len(there.seen[20]))[:count]], axis=1)  # fmt: skip
    wrong = there.view_as(2, 20, np.eye(3), np.array([0.0, 0.0, -1.0]), shared)
    fit = fitted(there, [*views, wrong])
    ordered = sorted([*views, wrong], key=lambda view: (view.image_id_a, view.image_id_b))
    assert fit.share[ordered.index(wrong)] < 0.5


def test_a_wrong_decomposition_of_true_matches_is_a_true_pair() -> None:
    """Two-view geometry of a plane has two solutions; the matches hold whichever was taken."""
    there = street(30)
    views = there.views()
    true = views[40]
    a, b = int(true.image_id_a), int(true.image_id_b)
    turn = np.diag([-1.0, -1.0, 1.0])
    views[40] = there.view_as(a, b, turn, np.array([1.0, 0.0, 0.0]), true.inliers.astype(np.int64))
    fit = fitted(there, views)
    assert fit.share[40] > 0.9


def rows_of(there: Street) -> pa.Table:
    where = there.located()
    return pa.table(
        {
            "image_id": there.ids,
            "latitude": where.latitude,
            "longitude": where.longitude,
            "altitude": where.altitude,
            "gps_accuracy_m": np.full(len(there.ids), 3.0),
            "sequence_id": [f"drive {number}" for number in there.drive.tolist()],
            "sequence_index": there.index,
        }
    )


def test_pairs_of_photographs_without_a_pose_are_left_out_of_the_table() -> None:
    there = street(20)
    views = [
        view for view in there.views() if (view.image_id_a < "0018") == (view.image_id_b < "0018")
    ]
    images = rows_of(there)
    cameras = dict.fromkeys(there.ids, CAMERA)
    fits = fit_tables(images, views, lambda each: there.pixels[int(each)], cameras, 5.0, 3).fits
    assert fits.schema.equals(FITS)
    assert fits.num_rows == sum(view.image_id_b < "0018" for view in views)
    small = fit_tables(images, views, lambda each: there.pixels[int(each)], cameras, 5.0).fits
    assert small.num_rows == 0  # eighteen photographs are too few to judge by


def test_a_graph_that_refuses_pairs_of_photographs_in_a_row_does_not_judge() -> None:
    """One pair in five of those three places apart or less is refused: no verdict stands."""
    there = street(40)
    pairs, where = there.matched(there.views()), there.located()
    graph = solve_pose_graph(where, pairs)
    every = np.arange(len(pairs))
    assert agrees_with_drives(graph, pairs, where, every).all()
    near = np.flatnonzero(pairs.second - pairs.first <= 3)
    refused = near[::5]
    assert not agrees_with_drives(graph, pairs, where, np.setdiff1d(every, refused)).any()
    # Refused pairs of photographs further apart, or a few, say nothing against the graph.
    far = np.flatnonzero(pairs.second - pairs.first > 3)
    assert agrees_with_drives(graph, pairs, where, np.setdiff1d(every, far)).all()
    assert agrees_with_drives(graph, pairs, where, np.setdiff1d(every, near[:2])).all()


def test_nothing_of_a_graph_that_does_not_judge_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither fits nor loops nor poses: drives and loops would rest on it."""
    there = street(30, drives=2)
    cameras = dict.fromkeys(there.ids, CAMERA)

    def found() -> Fitted:
        views, images = there.views(), rows_of(there)
        return fit_tables(images, views, lambda each: there.pixels[int(each)], cameras, 5.0, 3)

    judged = found()
    assert judged.contradicting == 0
    assert min(judged.fits.num_rows, judged.graph.loops.num_rows, judged.graph.poses.num_rows) > 20
    monkeypatch.setattr(
        table, "agrees_with_drives", lambda graph, pairs, *_: np.zeros(len(pairs), bool)
    )
    refused = found()
    assert refused.contradicting == judged.fits.num_rows
    tables = (refused.fits, refused.graph.loops, refused.graph.poses)
    assert [each.num_rows for each in tables] == [0, 0, 0]
