"""What of an atlas lies near a position."""

from __future__ import annotations

import numpy as np

from vladmap.geodesy.wgs84 import geodetic_to_ecef
from vladmap.localisation.map_view import MapView


def test_photographs_within_reach_are_near_across_the_antimeridian_and_those_without_gps() -> None:
    """A hundredth of a degree of longitude is 1.1 km at the equator."""
    view = object.__new__(MapView)
    longitudes = [179.995, -179.995, 179.98, np.nan]
    places = [[0.0, longitude, 0.0] for longitude in longitudes]
    view.__dict__["_ecef"] = geodetic_to_ecef(np.array(places))
    assert view.near(0.0, 180.0, 600.0).tolist() == [0, 1, 3]
    assert view.near(0.0, -180.0, 600.0).tolist() == [0, 1, 3]
    assert view.near(45.0, 0.0, 600.0).tolist() == [3]
