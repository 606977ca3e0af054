import numpy as np
import pytest

from vladmap.geodesy.wgs84 import (
    ecef_to_geodetic,
    enu_to_geodetic,
    geodetic_to_ecef,
    geodetic_to_enu,
    great_circle_m,
)

PLACES = np.array(
    [
        [90.0, 0.0, 10.0],
        [-90.0, 0.0, -10.0],
        [89.9999999, 45.0, 0.0],
        [0.0, 0.0, 0.0],
        [0.0, 180.0, 8000.0],
        [-33.9, -179.9999999, -400.0],
        [55.7, 13.2, 37.0],
        [1e-9, -1e-9, 1e5],
    ]
)


def test_ecef_of_the_axes_is_the_ellipsoids_semi_axes() -> None:
    ecef = geodetic_to_ecef([[0, 0, 0], [0, 90, 0], [90, 0, 0]])
    polar = 6356752.314245179
    expected = [[6378137, 0, 0], [0, 6378137, 0], [0, 0, polar]]
    np.testing.assert_allclose(ecef, expected, atol=1e-6)


def test_round_trip_is_exact_at_poles_equator_and_antimeridian() -> None:
    rng = np.random.default_rng(0)
    anywhere = np.column_stack(
        [rng.uniform(-90, 90, 5000), rng.uniform(-180, 180, 5000), rng.uniform(-1e4, 1e5, 5000)]
    )
    ecef = geodetic_to_ecef(np.concatenate([PLACES, anywhere]))
    again = geodetic_to_ecef(ecef_to_geodetic(ecef))
    assert np.linalg.norm(again - ecef, axis=1).max() < 1e-6


@pytest.mark.parametrize("origin", PLACES)
def test_enu_round_trip_stays_within_a_micrometre(origin: np.ndarray) -> None:
    enu = np.random.default_rng(1).normal(0, 2000, (200, 3))
    again = geodetic_to_enu(enu_to_geodetic(enu, origin), origin)
    assert np.abs(again - enu).max() < 1e-6


def test_enu_points_east_north_and_up() -> None:
    origin = (48.2, 16.37, 100.0)
    moved = geodetic_to_enu(
        [[48.2, 16.37, 101.0], [48.2001, 16.37, 100.0], [48.2, 16.3701, 100.0]], origin
    )
    np.testing.assert_allclose(moved[0], [0, 0, 1], atol=1e-6)
    assert moved[1, 1] == pytest.approx(11.12, abs=0.02)
    assert moved[2, 0] == pytest.approx(7.43, abs=0.02)


def test_great_circle_crosses_the_antimeridian() -> None:
    degree = 2 * np.pi * 6371008.8 / 360
    distance = great_circle_m([0.0, 0.0], [179.5, 10.0], [0.0, 90.0], [-179.5, -50.0])
    np.testing.assert_allclose(distance, [degree, 90 * degree])
