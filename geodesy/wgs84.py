"""WGS84: geodetic, earth-centred (ECEF) and local east-north-up (ENU) coordinates, in arrays.

Geodetic points are (..., 3) arrays of latitude (degree), longitude (degree) and height (metre);
ECEF and ENU points are (..., 3) arrays in metres. All arithmetic is float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

SEMI_MAJOR_AXIS = 6378137.0
FLATTENING = 1.0 / 298.257223563
ECCENTRICITY2 = FLATTENING * (2.0 - FLATTENING)
MEAN_RADIUS = 6371008.8

_SEMI_MINOR_AXIS = SEMI_MAJOR_AXIS * (1.0 - FLATTENING)
_SECOND_ECCENTRICITY2 = ECCENTRICITY2 / (1.0 - ECCENTRICITY2)
_BOWRING_ITERATIONS = 4

Array = NDArray[np.float64]


def geodetic_to_ecef(points: ArrayLike) -> Array:
    """Return the ECEF coordinates, (..., 3) in metres, of geodetic `points`."""
    points = np.asarray(points, np.float64)
    latitude, longitude = np.radians(points[..., 0]), np.radians(points[..., 1])
    height = points[..., 2]
    sin_latitude, cos_latitude = np.sin(latitude), np.cos(latitude)
    normal = SEMI_MAJOR_AXIS / np.sqrt(1.0 - ECCENTRICITY2 * sin_latitude**2)
    return np.stack(
        [
            (normal + height) * cos_latitude * np.cos(longitude),
            (normal + height) * cos_latitude * np.sin(longitude),
            (normal * (1.0 - ECCENTRICITY2) + height) * sin_latitude,
        ],
        axis=-1,
    )


def ecef_to_geodetic(points: ArrayLike) -> Array:
    """Return the geodetic coordinates, (..., 3), of ECEF `points`; longitude in (-180, 180].

    Bowring's iteration (Survey Review 23, 1976) on the parametric latitude, in a form that does not
    divide by zero at the poles. Accurate to well under a micrometre from the deepest mine to
    satellite heights; near the centre of the earth latitude is undefined.
    """
    points = np.asarray(points, np.float64)
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    equatorial = np.hypot(x, y)
    parametric = np.arctan2(SEMI_MAJOR_AXIS * z, _SEMI_MINOR_AXIS * equatorial)
    latitude = parametric
    for _ in range(_BOWRING_ITERATIONS):
        latitude = np.arctan2(
            z + _SECOND_ECCENTRICITY2 * _SEMI_MINOR_AXIS * np.sin(parametric) ** 3,
            equatorial - ECCENTRICITY2 * SEMI_MAJOR_AXIS * np.cos(parametric) ** 3,
        )
        parametric = np.arctan2((1.0 - FLATTENING) * np.sin(latitude), np.cos(latitude))
    sin_latitude, cos_latitude = np.sin(latitude), np.cos(latitude)
    height = (
        equatorial * cos_latitude
        + z * sin_latitude
        - SEMI_MAJOR_AXIS * np.sqrt(1.0 - ECCENTRICITY2 * sin_latitude**2)
    )
    return np.stack([np.degrees(latitude), np.degrees(np.arctan2(y, x)), height], axis=-1)


def ecef_on_ellipsoid(latitude: ArrayLike, longitude: ArrayLike) -> Array:
    """Return the ECEF coordinates, (..., 3) in metres, of places in degrees at height 0."""
    latitude, longitude = np.broadcast_arrays(latitude, longitude)
    return geodetic_to_ecef(np.stack([latitude, longitude, np.zeros(latitude.shape)], axis=-1))


def enu_from_ecef_rotation(latitude: float, longitude: float) -> Array:
    """Return the (3, 3) rotation from ECEF axes to east, north, up at a place in degrees."""
    phi, lam = np.radians(latitude), np.radians(longitude)
    sin_phi, cos_phi, sin_lam, cos_lam = np.sin(phi), np.cos(phi), np.sin(lam), np.cos(lam)
    return np.array(
        [
            [-sin_lam, cos_lam, 0.0],
            [-sin_phi * cos_lam, -sin_phi * sin_lam, cos_phi],
            [cos_phi * cos_lam, cos_phi * sin_lam, sin_phi],
        ]
    )


def geodetic_to_enu(points: ArrayLike, origin: ArrayLike) -> Array:
    """Return `points` (..., 3), geodetic, in the ENU frame at the geodetic `origin` (3,)."""
    origin = np.asarray(origin, np.float64)
    rotation = enu_from_ecef_rotation(origin[0], origin[1])
    return (geodetic_to_ecef(points) - geodetic_to_ecef(origin)) @ rotation.T


def enu_to_geodetic(points: ArrayLike, origin: ArrayLike) -> Array:
    """Return ENU `points` (..., 3), of the frame at the geodetic `origin` (3,), as geodetic."""
    origin = np.asarray(origin, np.float64)
    rotation = enu_from_ecef_rotation(origin[0], origin[1])
    return ecef_to_geodetic(np.asarray(points, np.float64) @ rotation + geodetic_to_ecef(origin))


def great_circle_m(
    latitude_a: ArrayLike, longitude_a: ArrayLike, latitude_b: ArrayLike, longitude_b: ArrayLike
) -> Array:
    """Return great-circle distances in metres between places in degrees, broadcast.

    The haversine formula on the sphere of the earth's mean radius: within 0.6 % of the geodesic on
    the ellipsoid. NaN coordinates give NaN.
    """
    phi_a, phi_b = np.radians(latitude_a), np.radians(latitude_b)
    half_phi = (phi_b - phi_a) / 2.0
    half_lam = (np.radians(longitude_b) - np.radians(longitude_a)) / 2.0
    haversine = np.sin(half_phi) ** 2 + np.cos(phi_a) * np.cos(phi_b) * np.sin(half_lam) ** 2
    return 2.0 * MEAN_RADIUS * np.arcsin(np.sqrt(np.clip(haversine, 0.0, 1.0)))
