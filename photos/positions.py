"""Validation of positions and of numbers in metadata."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

ALTITUDE_RANGE_M = (-1_000.0, 20_000.0)
"""From below the Dead Sea's shore to above any aeroplane; values outside are invalid."""


def valid_positions(
    latitude: Sequence[float | None] | np.ndarray, longitude: Sequence[float | None] | np.ndarray
) -> np.ndarray:
    """Which of n positions can be used: finite, in bounds, and not (0, 0).

    Latitude and longitude are (n,) degrees, None or NaN where absent; returns (n,) bool. Both poles
    and both names of the antimeridian, -180 and 180, are in bounds. (0, 0) is what a receiver
    without a fix writes; no street is within a centimetre of it.
    """
    lat = np.asarray(latitude, dtype=np.float64)
    lon = np.asarray(longitude, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        in_bounds = (np.abs(lat) <= 90.0) & (np.abs(lon) <= 180.0)
        origin = (np.abs(lat) < 1e-7) & (np.abs(lon) < 1e-7)
    return in_bounds & ~origin


def is_valid_position(latitude: float, longitude: float) -> bool:
    """`valid_positions` for one position, without arrays: headers are read one at a time."""
    return (
        abs(latitude) <= 90.0
        and abs(longitude) <= 180.0
        and not (abs(latitude) < 1e-7 and abs(longitude) < 1e-7)
    )


def is_tokyo(datum: object) -> bool:
    """Whether the datum is Tokyo, 400 m from WGS84; others in use differ by metres only."""
    return isinstance(datum, str) and datum.strip("\0 ").upper().startswith("TOKYO")


def finite(value: Any) -> float | None:
    """A finite float from what a metadata field holds, else None.

    Understands numbers, Pillow's rationals, one-element tuples, numbers as text and the
    "numerator/denominator" of XMP. A zero denominator, NaN and infinity are no number.
    """
    if isinstance(value, tuple | list) and len(value) == 1:
        value = value[0]
    if value is None or isinstance(value, bool | bytes | tuple | list | dict):
        return None
    try:
        if isinstance(value, str):
            numerator, _, denominator = value.strip("\0 \t\r\n").partition("/")
            number = float(numerator) / float(denominator or 1)
        else:
            number = float(value)
    except (ArithmeticError, TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def angle(value: Any, low: float = -360.0, high: float = 720.0) -> float | None:
    """A direction in degrees reduced to [0, 360); None where it is not from `low` to `high`."""
    number = between(value, low, high)
    # Twice, since the remainder of a tiny negative number rounds to 360 itself.
    return None if number is None else number % 360.0 % 360.0


def between(value: Any, low: float, high: float) -> float | None:
    """`finite(value)` where it lies in [low, high], else None."""
    number = finite(value)
    return number if number is not None and low <= number <= high else None
