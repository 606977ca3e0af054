import numpy as np
import pyproj
import pytest

from vladmap.geodesy.wgs84 import (
    ecef_on_ellipsoid,
    ecef_to_geodetic,
    enu_to_geodetic,
    geodetic_to_ecef,
    geodetic_to_enu,
    great_circle_m,
)

TO_ECEF = pyproj.Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
GEODESIC = pyproj.Geod(ellps="WGS84")
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


def globe(seed: int = 0) -> np.ndarray:
    """Places all over the globe with the poles and both sides of the antimeridian."""
    rng = np.random.default_rng(seed)
    anywhere = [
        rng.uniform(-90, 90, 3000),
        rng.uniform(-180, 180, 3000),
        rng.uniform(-400, 9e3, 3000),
    ]
    seam = [rng.uniform(-90, 90, 200), rng.choice([-180.0, 180.0, 179.999999, -179.999999], 200)]
    edge = np.column_stack([*seam, np.zeros(200)])
    return np.concatenate([PLACES, np.column_stack(anywhere), edge])


def test_ecef_is_that_of_proj_all_over_the_globe() -> None:
    places = globe()
    latitude, longitude, height = places.T
    expected = np.stack(TO_ECEF.transform(longitude, latitude, height), axis=1)
    np.testing.assert_allclose(geodetic_to_ecef(places), expected, atol=1e-8, rtol=0)
    flat = np.stack(TO_ECEF.transform(longitude, latitude, 0 * height), axis=1)
    np.testing.assert_allclose(ecef_on_ellipsoid(latitude, longitude), flat, atol=1e-8, rtol=0)


def test_places_from_ecef_are_those_of_proj_within_a_micrometre() -> None:
    ecef = geodetic_to_ecef(globe())
    longitude, latitude, height = TO_ECEF.transform(*ecef.T, direction="INVERSE")
    ours = ecef_to_geodetic(ecef)
    assert np.abs(ours[:, 0] - latitude).max() * 111e3 < 1e-6
    assert np.abs(ours[:, 2] - height).max() < 1e-6
    # Near the poles a longitude of the same place may be any: its degrees are short there.
    turn = (ours[:, 1] - longitude + 180.0) % 360.0 - 180.0
    assert np.abs(turn * 111e3 * np.cos(np.radians(latitude))).max() < 1e-6


@pytest.mark.parametrize("origin", PLACES)
def test_enu_is_that_of_proj(origin: np.ndarray) -> None:
    near = enu_to_geodetic(np.random.default_rng(2).normal(0, 3000, (50, 3)), origin)
    pipeline = pyproj.Transformer.from_pipeline(
        "+proj=pipeline +step +proj=axisswap +order=2,1,3 +step +proj=unitconvert +xy_in=deg "
        "+xy_out=rad +step +proj=cart +ellps=WGS84 +step +proj=topocentric +ellps=WGS84 "
        f"+lat_0={origin[0]:.12f} +lon_0={origin[1]:.12f} +h_0={origin[2]:.6f}"
    )
    expected = np.stack(pipeline.transform(*near.T), axis=1)
    np.testing.assert_allclose(geodetic_to_enu(near, origin), expected, atol=1e-5, rtol=0)


def test_great_circles_are_within_0_6_percent_of_geodesics() -> None:
    a, b = globe(3), globe(4)[::-1]
    ours = great_circle_m(a[:, 0], a[:, 1], b[:, 0], b[:, 1])
    _, _, geodesic = GEODESIC.inv(a[:, 1], a[:, 0], b[:, 1], b[:, 0])
    apart = geodesic > 1.0
    assert np.abs(ours[apart] / geodesic[apart] - 1.0).max() < 0.006
    assert ours[~apart].max(initial=0.0) < 1.01


def test_a_degree_on_the_60th_parallel_is_half_as_long() -> None:
    degree = 2 * np.pi * 6371008.8 / 360
    distance = great_circle_m([10, 0, 60, 5], [5, 0, 7, 6], [11, 0, 60, 5], [5, 1, 8, 6])
    # A great circle cuts the corner: 1e-4 less.
    np.testing.assert_allclose(distance, [degree, degree, degree / 2, 0.0], rtol=1e-4)


def test_a_place_that_is_not_known_has_no_distance_and_no_ecef() -> None:
    assert np.isnan(great_circle_m(np.nan, 1.0, 2.0, 3.0))
    assert np.isnan(ecef_on_ellipsoid(np.nan, 1.0)).all()
    assert np.isfinite(ecef_on_ellipsoid([np.nan, 1.0], [2.0, 3.0])[1]).all()
