"""Which poses are told and which are not, on evidence that is written down by hand."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import numpy as np
import pytest

from tests.localisation.scene import LENS, Stored, model_of
from vladmap.features.base import LocalFeatures
from vladmap.localisation.evidence import (
    covered_share,
    explained_share,
    inlier_lines,
    part_counts,
)
from vladmap.localisation.judge import MIN_INLIERS, judge
from vladmap.localisation.locate import Evidence
from vladmap.localisation.map_view import MapView, Photograph
from vladmap.localisation.poses import Candidate, Correspondences, FoundPose
from vladmap.localisation.query import Query
from vladmap.localisation.settings import LocaliseSettings
from vladmap.mapping.absolute_pose import AbsolutePose

PARTS = 36
POINTS_A_PART = 10


def grid() -> np.ndarray:
    """10 points in each of the picture's 36 parts, 10 m ahead of a camera at the origin."""
    column, row = np.meshgrid(np.arange(6), np.arange(6))
    middle = np.stack([(column + 0.5) * 100, (row + 0.5) * 400 / 6], axis=-1).reshape(-1, 2)
    spread = np.linspace(-20, 20, POINTS_A_PART)[:, None]
    pixels = (middle[:, None] + spread).reshape(-1, 2)
    focal, *principal = LENS.params
    return np.concatenate([(pixels - principal) / focal * 10, np.full((len(pixels), 1), 10.0)], 1)


def pose(inliers: int, *, sigma_m: float = 0.1, east: float = 0.0) -> AbsolutePose:
    covariance = np.diag([sigma_m**2 / 3] * 3 + [1e-6] * 3)
    return AbsolutePose(
        np.array([1.0, 0, 0, 0]), np.array([-east, 0, 0]), np.ones(inliers, bool), LENS, 0.5,
        covariance,
    )  # fmt: skip


MODEL = model_of(grid(), {"seen": [(row, row) for row in range(PARTS * POINTS_A_PART)]})


def found(shown: np.ndarray, **how: Any) -> FoundPose:
    """A pose that explains these points, each by a keypoint of its own."""
    votes = np.ones((1, len(shown)), bool)
    pairs = Correspondences(np.arange(len(shown)), shown, votes)
    return FoundPose(MODEL, pose(len(shown), **how), pairs, len(shown))


class View:
    """What `judge` asks of an atlas: one photograph, which the query is matched with."""

    models = (MODEL,)
    features = ()

    def photograph(self, image_id: str) -> Photograph:
        return Photograph(image_id, f"{image_id}.jpg", 48.0, 16.0)

    def features_of(self, image_id: str) -> None:
        return None


def query(**facts: Any) -> Query:
    features = LocalFeatures(np.zeros((400, 4), np.float32), np.zeros((400, 1), np.uint8))
    return Query({"width": 600, "height": 400, **facts}, np.zeros(4, np.float32), features)


def verdict(best: FoundPose | None, rival: FoundPose | None = None, **facts: Any) -> Any:
    candidate = Candidate("seen", 0, 0.9, np.zeros((0, 2), np.uint32))
    evidence = Evidence([candidate], best, rival, LENS, "atlas")
    return judge(cast(MapView, View()), query(**facts), evidence, LocaliseSettings())


EVERY_THIRD = np.arange(0, PARTS * POINTS_A_PART, 3)


def test_parts_count_the_points_that_should_show_and_those_that_do() -> None:
    left = np.arange(PARTS * POINTS_A_PART).reshape(PARTS, POINTS_A_PART)
    left_half = left[np.arange(PARTS) % 6 < 3]
    expected, shown = part_counts(found(left_half.ravel()[::5]), ["seen"])
    assert (expected == POINTS_A_PART).all()
    assert shown.reshape(6, 6).tolist() == [[2, 2, 2, 0, 0, 0]] * 6
    assert explained_share(found(left_half.ravel()[::5]), ["seen"]) == pytest.approx(0.5)


def test_a_pose_that_nothing_speaks_against_is_told() -> None:
    told = verdict(found(EVERY_THIRD))
    assert (told.status, told.reason) == ("pose", None)
    assert told.place.image_id == "seen"
    assert told.place_inliers == len(EVERY_THIRD)
    assert told.explained == 1.0


def test_few_inliers_are_no_pose() -> None:
    told = verdict(found(np.arange(0, 360, 15)[: MIN_INLIERS - 1]))
    assert (told.status, told.reason) == ("unknown", "few_inliers")
    assert verdict(None).reason == "few_inliers"


def test_a_place_that_another_one_explains_nearly_as_well_is_unknown() -> None:
    best = found(EVERY_THIRD)
    half = found(EVERY_THIRD[: len(EVERY_THIRD) // 2 + 1], east=40.0)
    assert verdict(best, half).reason == "ambiguous"
    assert verdict(best, found(EVERY_THIRD[:40], east=40.0)).status == "pose"


def test_a_picture_of_which_the_map_knows_a_part_is_unknown() -> None:
    """One facade fits, what stands beside it does not: a twin elsewhere, or a changed street."""
    facade = np.arange(360).reshape(6, 6, 10)[:, :2].ravel()
    told = verdict(found(facade))
    assert (told.status, told.reason) == ("unknown", "partly_explained")
    assert told.explained == pytest.approx(1 / 3)


def test_points_that_do_not_hold_the_position_are_no_pose() -> None:
    assert verdict(found(EVERY_THIRD, sigma_m=3.0)).reason == "loose"


def test_a_pose_out_of_reach_of_its_gps_is_unknown() -> None:
    near = {"latitude": 48.0, "longitude": 16.0}
    assert verdict(found(EVERY_THIRD), **near).status == "pose"
    far = verdict(found(EVERY_THIRD), latitude=48.002, longitude=16.0)
    assert (far.status, far.reason) == ("unknown", "far_from_gps")
    assert "222 m" in far.detail


def test_points_in_a_corner_of_the_picture_are_too_few_to_tell() -> None:
    """Two parts of 36: whatever fits there, nothing else can contradict it."""
    corner = model_of(grid()[:20], {"seen": [(row, row) for row in range(20)] * 2})
    best = dataclasses.replace(found(np.arange(20).repeat(2)), model=corner)
    told = verdict(best)
    assert (told.status, told.reason) == ("unknown", "partly_explained")
    assert told.explained is None


def test_without_a_place_on_earth_a_model_has_no_metres_to_be_loose_by() -> None:
    model = dataclasses.replace(MODEL, stored=cast(Any, Stored()))
    model.stored.georegistered = False  # type: ignore[misc]
    loose = dataclasses.replace(found(EVERY_THIRD, sigma_m=3.0), model=model)
    assert verdict(loose).status == "pose"


def test_panoramas_and_pictures_without_features_are_unknown() -> None:
    assert verdict(found(EVERY_THIRD), projection="equirectangular").reason == "panorama"
    candidate = Candidate("seen", 0, 0.9, np.zeros((0, 2), np.uint32))
    evidence = Evidence([candidate], None, None, LENS, "atlas")
    blank = dataclasses.replace(query(), features=None)
    told = judge(cast(MapView, View()), blank, evidence, LocaliseSettings())
    assert (told.status, told.reason) == ("unknown", "no_features")


def test_nothing_within_reach_is_unknown_and_names_the_reach() -> None:
    evidence = Evidence([], None, None, LENS, "atlas")
    told = judge(cast(MapView, View()), query(), evidence, LocaliseSettings())
    assert (told.status, told.reason) == ("unknown", "none_near")
    assert "150 m" in told.detail


def test_the_covered_share_counts_the_parts_with_keypoints_in_which_some_agree() -> None:
    """36 parts: 8 keypoints in each of the 12 of the upper two rows, 3 in one below them."""
    column, row = np.meshgrid(np.arange(6), np.arange(2))
    middles = np.stack([(column.ravel() + 0.5) * 100, (row.ravel() + 0.5) * 400 / 6], axis=1)
    xy = np.concatenate([np.repeat(middles, 8, axis=0), np.full((3, 2), 399.9)])
    features = LocalFeatures(
        np.pad(xy, ((0, 0), (0, 2))).astype(np.float32), np.zeros((len(xy), 1), np.uint8)
    )
    assert covered_share(features, (600, 400), np.arange(24)) == pytest.approx(3 / 12)
    assert covered_share(features, (600, 400), np.arange(96, 99)) == 0.0
    assert covered_share(features.rows(np.arange(5)), (600, 400), np.arange(5)) == 0.0


def test_the_lines_of_a_pose_are_the_keypoints_that_show_the_same_points() -> None:
    places = np.zeros((3, 3))
    model = model_of(places, {"other": [(0, 1)], "place": [(4, 2), (6, 0)]})
    votes = np.array([[True, False, False], [True, False, True]])
    pairs = Correspondences(np.array([7, 8, 9]), np.array([0, 1, 2]), votes)
    best = FoundPose(model, pose(3), pairs, 3)
    ours, theirs = (
        LocalFeatures(
            np.arange(40, dtype=np.float32).reshape(10, 4) + shift, np.zeros((10, 1), np.uint8)
        )
        for shift in (0, 100)
    )
    # Keypoint 7 shows point 0, which is keypoint 6 of the place; 9 shows 2, which is 4.
    expected = [[28, 29, 124, 125], [36, 37, 116, 117]]
    assert inlier_lines(best, 1, "place", ours, theirs).tolist() == expected
