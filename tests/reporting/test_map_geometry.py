"""Positions, distances and headings, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.reporting.synthetic import METRES_PER_DEGREE
from vladmap.reporting.map_geometry import LocalMercator, flatten_models


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


@pytest.mark.parametrize("longitude", [13.2, 179.9999, -180.0, 0.0])
@pytest.mark.parametrize("latitude", [55.7, -33.9, 0.0])
def test_the_map_is_true_to_scale_and_north_up(latitude: float, longitude: float) -> None:
    step = 1e-3
    lat = latitude + array(-step, step, 0, 0)
    lon = (longitude + array(0, 0, -step, step) + 180) % 360 - 180
    east, north = LocalMercator.about(lat, lon).project(lat, lon)
    metres = METRES_PER_DEGREE * step
    np.testing.assert_allclose(north[:2], [-metres, metres], rtol=1e-4)
    np.testing.assert_allclose(
        east[2:], array(-metres, metres) * np.cos(np.radians(latitude)), 1e-4
    )
    np.testing.assert_allclose([*east[:2], *north[2:]], 0, atol=0.01)


def test_unknown_positions_stay_unknown_and_do_not_move_the_centre() -> None:
    lat, lon = array(10, np.nan, 12), array(20, np.nan, 20)
    frame = LocalMercator.about(lat, lon)
    assert (frame.latitude, frame.longitude) == pytest.approx((11, 20))
    assert np.isnan(frame.project(lat, lon)).tolist() == [[False, True, False]] * 2
    assert LocalMercator.about(array(np.nan), array(np.nan)) == LocalMercator(0.0, 0.0)


def test_models_without_gps_keep_their_shape_and_stand_side_by_side() -> None:
    square = np.array([[0, 0, 0], [2, 0, 0], [2, 0, 2], [0, 0, 2]], dtype=np.float64)
    twice = np.concatenate([square, 50 + 3 * square])
    x, y = flatten_models(twice, np.repeat([0, 1], 4))
    for model in (slice(0, 4), slice(4, 8)):
        corners = np.column_stack([x[model], y[model]])
        sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
        np.testing.assert_allclose(sides, sides[0])
    assert x[:4].max() < x[4:].min()


def test_a_model_of_one_image_is_drawn() -> None:
    x, y = flatten_models(np.array([[5.0, 6.0, 7.0]]), np.array([0]))
    assert np.isfinite([*x, *y]).all()
