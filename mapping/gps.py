"""GPS of images in an east-north-up frame, and the origin of such a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vladmap.geodesy.wgs84 import ecef_on_ellipsoid, ecef_to_geodetic, geodetic_to_enu
from vladmap.mapping.arrays import Array

DEFAULT_ACCURACY_M = 5.0
"""The horizontal standard deviation of positions that state none: that of a phone in a street."""


@dataclass(frozen=True)
class GpsPositions:
    """GPS positions of n images in an east-north-up frame.

    `enu` (n, 3) are metres, all NaN for an image without a position, NaN in the last column for one
    without an altitude. `sigma` (n,) is the horizontal standard deviation in metres.
    """

    enu: Array
    sigma: Array


def choose_origin(latitude: Array, longitude: Array, altitude: Array) -> tuple[float, float, float]:
    """Return the origin of an east-north-up frame amid positions: degrees, degrees, metres.

    `latitude`, `longitude` and `altitude` (n,) are NaN where unknown. The origin is the median of
    the positions in earth-centred coordinates, which neither outliers nor the antimeridian move
    far, rounded to about a metre; it is (0, 0, 0) if no position is known.
    """
    known = np.isfinite(latitude) & np.isfinite(longitude)
    if not known.any():
        return 0.0, 0.0, 0.0
    places = ecef_on_ellipsoid(latitude[known], longitude[known])
    middle = ecef_to_geodetic(np.median(places, axis=0))
    heights = altitude[known & np.isfinite(altitude)]
    height = float(np.round(np.median(heights))) if len(heights) else 0.0
    return float(np.round(middle[0], 5)), float(np.round(middle[1], 5)), height


def gps_positions(
    rows: Sequence[Mapping[str, Any]],
    origin: tuple[float, float, float],
    default_sigma_m: float = DEFAULT_ACCURACY_M,
) -> GpsPositions:
    """Return the GPS positions of rows of IMAGES in the east-north-up frame at `origin`.

    A row has latitude, longitude, altitude and gps_accuracy_m, each None where unknown. A position
    that states no accuracy has that of `default_sigma_m`.
    """

    def column(name: str) -> Array:
        return np.array(
            [np.nan if row[name] is None else row[name] for row in rows], np.float64
        ).reshape(-1)

    latitude, longitude, altitude = (column(name) for name in ("latitude", "longitude", "altitude"))
    sigma = column("gps_accuracy_m")
    known = np.isfinite(latitude) & np.isfinite(longitude)
    has_height = known & np.isfinite(altitude)
    places = np.stack([latitude, longitude, np.where(has_height, altitude, origin[2])], axis=1)
    places[~known] = origin
    enu = geodetic_to_enu(places, origin)
    enu[~has_height, 2] = np.nan
    enu[~known] = np.nan
    return GpsPositions(enu, np.where(np.isfinite(sigma) & (sigma > 0), sigma, default_sigma_m))
