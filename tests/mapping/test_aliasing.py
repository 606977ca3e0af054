"""Perceptual aliasing: which verified pairs GPS speaks against, cases worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from mapping.aliasing import collapsed, implausible
from mapping.colmap import pycolmap
from mapping.geodesy import enu_to_geodetic
from mapping.matching import TwoView

ORIGIN = (48.0, 16.0, 0.0)
SIGMA = 2.0  # of a distance 2.83 m, four times which is 11.3 m


def images(east: list[float | None]) -> list[dict[str, Any]]:
    """Rows of images at so many metres east of the origin; None has no GPS."""
    rows: list[dict[str, Any]] = []
    for number, metres in enumerate(east):
        latitude, longitude, _ = enu_to_geodetic(np.array([[metres or 0.0, 0, 0]]), ORIGIN)[0]
        known = metres is not None
        rows.append(
            {
                "image_id": str(number), "altitude": None, "gps_accuracy_m": None,
                "latitude": latitude if known else None, "longitude": longitude if known else None,
            }
        )  # fmt: skip
    return rows


def view(a: int, b: int, inliers: int) -> TwoView:
    matches = np.zeros((inliers, 2), np.uint32)
    return TwoView(str(a), str(b), "CALIBRATED", matches, matches)


def test_a_far_pair_with_more_inliers_than_near_ones_is_not_trusted() -> None:
    rows = images([0, 5, 100, 105])
    views = [view(0, 1, 80), view(2, 3, 80), view(0, 2, 200)]
    assert implausible(views, rows, ORIGIN, SIGMA).tolist() == [False, False, True]


def test_a_far_pair_with_fewer_inliers_than_near_ones_is_kept() -> None:
    # A long straight street: its far end is seen from both, in fewer keypoints.
    rows = images([0, 5, 30, 35])
    views = [view(0, 1, 200), view(2, 3, 200), view(0, 2, 40)]
    assert not implausible(views, rows, ORIGIN, SIGMA).any()


def test_a_pair_within_the_error_of_gps_is_always_kept() -> None:
    rows = images([0, 5, 11])
    views = [view(0, 1, 20), view(1, 2, 20), view(0, 2, 500)]
    assert not implausible(views, rows, ORIGIN, SIGMA).any()
    assert implausible(views, rows, ORIGIN, 1.0).tolist() == [False, False, True]


def test_a_far_pair_is_spared_where_near_ones_are_many() -> None:
    near = list(range(7))
    rows = images([float(at) for at in near] + [60.0 + at for at in near])
    views = [view(a, b, 100) for a in near for b in near if a < b]
    views += [view(a + 7, b + 7, 100) for a in near for b in near if a < b]
    flagged = implausible([*views, view(0, 7, 20)], rows, ORIGIN, SIGMA)
    assert np.flatnonzero(flagged).tolist() == [len(views)]


def test_without_gps_nothing_is_implausible() -> None:
    rows = images([0, None, 100])
    views = [view(0, 1, 500), view(1, 2, 500)]
    assert not implausible(views, rows, ORIGIN, SIGMA).any()


def model_at(east: list[float]) -> pycolmap.Reconstruction:
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(model="PINHOLE", width=4, height=3, params=[4.0, 4.0, 2.0, 1.5])
    camera.camera_id = 1
    model.add_camera_with_trivial_rig(camera)
    for number, metres in enumerate(east):
        image = pycolmap.Image(name=str(number), camera_id=1, image_id=number + 1)
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(), np.array([-metres, 0.0, 0.0]))
        model.add_image_with_trivial_frame(image, pose)
    return model


def test_images_mapped_together_that_gps_has_apart_are_collapsed() -> None:
    by_name = dict(enumerate(images([0, 10, 60, None])))
    named = {str(number): row for number, row in by_name.items()}
    pairs = [("0", "1"), ("0", "2"), ("1", "2"), ("2", "3"), ("0", "9")]
    assert collapsed(model_at([0, 10, 12, 50]), pairs, named, ORIGIN, SIGMA) == [
        ("0", "2"),  # 60 m by GPS, 12 mapped
        ("1", "2"),  # 50 m by GPS, 2 mapped
    ]


def test_images_mapped_apart_that_gps_has_together_are_not() -> None:
    named = {str(number): row for number, row in enumerate(images([0, 10, 20]))}
    pairs = [("0", "1"), ("1", "2")]
    assert collapsed(model_at([0, 50, 100]), pairs, named, ORIGIN, SIGMA) == []
    assert collapsed(model_at([0, 50, 100]), [], named, ORIGIN, SIGMA) == []
