"""Universal Transverse Mercator (UTM): metres east and north within one of 60 zones."""

from __future__ import annotations

import numpy as np
import pyproj
from numpy.typing import ArrayLike, NDArray

BANDS = "CDEFGHJKLMNPQRSTUVWX"
"""Letters of the latitude bands, from 80 degrees south to north, 8 degrees each. I and O are not
used, since they look like digits. The bands from N on lie in the northern hemisphere."""

Array = NDArray[np.float64]


def zone_of(longitude: float) -> int:
    """Return the number, 1 to 60, of the zone of a longitude in degrees.

    The widened zones of south-west Norway and Svalbard are not taken into account.
    """
    return int((longitude + 180.0) // 6.0) % 60 + 1


def band_of(latitude: float) -> str:
    """Return the letter of the band of a latitude in degrees, -80 to 84."""
    return BANDS[min(int((latitude + 80.0) // 8.0), len(BANDS) - 1)]


def to_utm(latitude: ArrayLike, longitude: ArrayLike, zone: int) -> tuple[Array, Array]:
    """Return (east, north) in metres of places in degrees; `zone` is negative in the south."""
    east, north = _projection(zone)(longitude, latitude)
    return east, north


def from_utm(east: ArrayLike, north: ArrayLike, zone: int) -> tuple[Array, Array]:
    """Return (latitude, longitude) in degrees; `zone` is negative in the southern hemisphere.

    Points outside the projection's domain give infinity.
    """
    longitude, latitude = _projection(zone)(east, north, inverse=True)
    return latitude, longitude


def _projection(zone: int) -> pyproj.Proj:
    return pyproj.Proj(proj="utm", zone=abs(zone), south=zone < 0, ellps="WGS84")
