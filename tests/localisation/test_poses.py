"""Correspondences, groups of candidates and rival poses, in maps written down by hand."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import numpy as np

from tests.localisation.scene import LENS, Stored, model_of
from vladmap.features.base import LocalFeatures
from vladmap.localisation.poses import (
    Candidate,
    clusters,
    correspondences,
    found_poses,
    rival_of,
)


def candidate(image: str, rank: int, *matches: tuple[int, int]) -> Candidate:
    return Candidate(image, rank, 0.9, np.array(matches, np.uint32).reshape(-1, 2))


def test_a_pair_of_keypoint_and_point_counts_once_and_remembers_who_says_so() -> None:
    model = model_of(np.zeros((3, 3)), {"a": [(7, 0), (9, 2)], "b": [(1, 0), (4, 1)]})
    candidates = [
        candidate("a", 0, (5, 7), (6, 8), (2, 9)),  # 8 shows no point
        candidate("outside", 1, (5, 1)),  # is not in this model
        candidate("b", 2, (5, 1), (5, 4)),
    ]
    found = correspondences(model, candidates)
    pairs = list(zip(found.keypoint.tolist(), found.point.tolist(), strict=True))
    assert pairs == [(2, 2), (5, 0), (5, 1)]
    assert found.votes.tolist() == [
        [True, True, False],
        [False, False, False],
        [False, True, True],
    ]


def test_candidates_are_grouped_by_the_points_they_share_the_largest_group_first() -> None:
    model = model_of(
        np.zeros((6, 3)),
        {"lone": [(0, 5)], "a": [(0, 0)], "b": [(0, 0), (1, 1)], "c": [(0, 1)], "d": [(0, 2)]},
    )
    candidates = [candidate(name, rank) for rank, name in enumerate(["lone", "a", "x", "c", "b"])]
    masks = [np.flatnonzero(mask).tolist() for mask in clusters(model, candidates)]
    assert masks == [[1, 3, 4], [0]]  # a with c through b; x is not in the model
    assert clusters(model, [candidate("x", 0)]) == []


def twins(left: int, right: int) -> tuple[LocalFeatures, list[Candidate], list]:
    """A query whose first keypoints fit one place and all its others a copy of it 100 m away."""
    rng = np.random.default_rng(0)
    wall = np.stack(
        [rng.uniform(-5, 5, 90), rng.uniform(-3, 3, 90), rng.uniform(10, 20, 90)], axis=1
    )
    places = np.concatenate([wall, wall + [100.0, 0.0, 0.0]])
    model = model_of(
        places,
        {
            "here": [(row, row) for row in range(90)],
            "there": [(row, 90 + row) for row in range(90)],
        },
    )
    pixels = np.asarray(LENS.to_colmap().img_from_cam(wall))
    keypoints = np.concatenate([pixels, np.zeros((90, 2))], axis=1).astype(np.float32)
    candidates = [
        candidate("there", 0, *[(row, row) for row in range(90 - right, 90)]),
        candidate("here", 1, *[(row, row) for row in range(left)]),
    ]
    return LocalFeatures(keypoints, np.zeros((90, 1), np.uint8)), candidates, [model]


def test_the_pose_that_explains_most_comes_first_and_the_other_place_is_its_rival() -> None:
    features, candidates, models = twins(60, 40)
    poses = found_poses(features, candidates, models, LENS, focal_known=True)
    assert [each.keypoints for each in poses] == [60, 40]
    assert poses[0].support.tolist() == [0, 60]
    assert poses[0].matched == 60
    np.testing.assert_allclose(poses[0].pose.centre, 0, atol=1e-2)
    rival = rival_of(poses[0], poses)
    assert rival is poses[1]
    np.testing.assert_allclose(rival.pose.centre, [100, 0, 0], atol=1e-2)


def test_a_second_pose_at_the_same_place_is_no_rival() -> None:
    features, candidates, models = twins(60, 0)
    (best,) = found_poses(features, candidates, models, LENS, focal_known=True)
    assert rival_of(best, [best, best]) is None
    assert found_poses(features, [candidate("here", 0)], models, LENS, focal_known=True) == []


def test_two_models_of_one_place_are_no_rivals_and_of_two_places_they_are() -> None:
    """Each has a frame of its own: only where they lie on earth tells."""
    features, candidates, (model,) = twins(60, 0)
    (best,) = found_poses(features, candidates, [model], LENS, focal_known=True)
    near, far, nowhere = (
        dataclasses.replace(best, model=dataclasses.replace(model, stored=cast(Any, stored)))
        for stored in (Stored((48.0001, 16.0, 200.0)), Stored((48.001, 16.0, 200.0)), Stored())
    )
    nowhere.model.stored.georegistered = False  # type: ignore[misc]
    assert rival_of(best, [best, near]) is None  # 11 m to the north
    assert rival_of(best, [best, near, far]) is far  # 111 m
    assert rival_of(best, [best, nowhere]) is nowhere


def test_two_places_in_one_group_are_both_found() -> None:
    """A photograph that shows points of both joins them, as a long street does."""
    features, candidates, models = twins(60, 40)
    (model,) = models
    seen = {name: np.stack(model.observations(name), axis=1).tolist() for name in ("here", "there")}
    joining = model_of(model.arrays.places, {**seen, "both": [(0, 0), (1, 90)]})
    both = [*candidates, candidate("both", 2)]
    assert len(clusters(joining, both)) == 1
    poses = found_poses(features, both, [joining], LENS, focal_known=True)
    assert [each.keypoints for each in poses] == [60, 40]
