import numpy as np
import pytest

from vladmap.geodesy.utm import band_of, from_utm, to_utm, zone_of


@pytest.mark.parametrize(
    ("latitude", "longitude", "zone", "band"),
    [
        (48.2, 16.37, 33, "U"),
        (55.7, 13.2, 33, "U"),
        (0.0, 0.0, 31, "N"),
        (-1e-9, -180.0, 1, "M"),
        (-80.0, 179.9999, 60, "C"),
        (83.9, 5.9999, 31, "X"),
    ],
)
def test_zone_and_band_of_a_place(latitude: float, longitude: float, zone: int, band: str) -> None:
    assert (zone_of(longitude), band_of(latitude)) == (zone, band)


def test_the_central_meridian_lies_500_km_east_and_the_south_begins_at_10000_km() -> None:
    east, north = to_utm(0.0, 15.0, 33)
    assert (float(east), float(north)) == pytest.approx((500_000.0, 0.0), abs=1e-6)
    east, north = to_utm(0.0, 15.0, -33)
    assert (float(east), float(north)) == pytest.approx((500_000.0, 10_000_000.0), abs=1e-6)


@pytest.mark.parametrize("zone", [1, -1, 33, -33, 60, -60])
def test_there_and_back_is_the_same_place(zone: int) -> None:
    rng = np.random.default_rng(0)
    latitude = rng.uniform(0, 80, 200) * np.sign(zone)
    longitude = abs(zone) * 6.0 - 183.0 + rng.uniform(-3, 3, 200)
    again = from_utm(*to_utm(latitude, longitude, zone), zone)
    np.testing.assert_allclose(again[0], latitude, atol=1e-9)
    np.testing.assert_allclose((again[1] - longitude + 180) % 360 - 180, 0, atol=1e-9)


def test_what_is_no_place_in_the_zone_is_infinite() -> None:
    latitude, _ = from_utm([1e12], [1e12], 33)
    assert np.isinf(latitude).all()
