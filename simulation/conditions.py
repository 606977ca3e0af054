"""Light of a scene: sun, sky and haze at a time and in a weather."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LATITUDE = 48.2  # degree, of the imagined city
_DECLINATION = 20.0  # degree, a day in late May

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Conditions:
    """What the same city looks like at another time. Colours are linear red, green, blue."""

    sun_azimuth_deg: float = 215.0  # clockwise from north
    sun_elevation_deg: float = 48.0  # above the horizon; below it there is no direct light
    brightness: float = 1.0  # exposure
    cloud_cover: float = 0.5  # 0 clear .. 1 overcast
    haze_distance_m: float = 700.0
    direct: float = 1.0  # share of the sun's light that gets through
    grey: float = 0.0  # 0: the sky has its colours .. 1: it is grey all over
    clouds_at: tuple[float, float] = (0.0, 0.0)  # where in the clouds the zenith is, 0..1
    lamps: float = 0.0  # how bright lamps and lit windows are
    lamp_colour: tuple[float, float, float] = (1.0, 0.72, 0.4)
    sky_glow: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of a town by night
    snow: float = 0.0  # share of the ground and the roofs that is white
    wet: float = 0.0  # 0: dry .. 1: the ground is dark and mirrors the sky

    @classmethod
    def at(cls, time_of_day: float, *, brightness: float = 1.0) -> Conditions:
        """The sun's place at a solar time in hours (0 to 24)."""
        hour = math.radians(15.0 * (time_of_day - 12.0))
        latitude, declination = math.radians(_LATITUDE), math.radians(_DECLINATION)
        sine = math.sin(latitude) * math.sin(declination) + math.cos(latitude) * math.cos(
            declination
        ) * math.cos(hour)
        east = -math.cos(declination) * math.sin(hour)
        north = math.cos(latitude) * math.sin(declination) - math.sin(latitude) * math.cos(
            declination
        ) * math.cos(hour)
        return cls(
            sun_azimuth_deg=math.degrees(math.atan2(east, north)) % 360.0,
            sun_elevation_deg=math.degrees(math.asin(sine)),
            brightness=brightness,
        )

    @property
    def sun(self) -> Vector:
        """(3,) unit vector towards the sun."""
        azimuth, elevation = (
            math.radians(self.sun_azimuth_deg),
            math.radians(self.sun_elevation_deg),
        )
        flat = math.cos(elevation)
        return np.array([flat * math.sin(azimuth), flat * math.cos(azimuth), math.sin(elevation)])

    @property
    def day(self) -> float:
        """0 by night, 1 by day, between in twilight."""
        return float(np.clip((self.sun_elevation_deg + 8.0) / 16.0, 0.0, 1.0))

    @property
    def sunlight(self) -> Vector:
        """(3,) direct light on a surface that faces the sun: redder and weaker when it is low."""
        height = float(np.clip(self.sun_elevation_deg / 30.0, 0.0, 1.0))
        colour = np.array([1.0, 0.6, 0.32]) * (1 - height) + np.array([1.0, 0.95, 0.86]) * height
        rise = float(np.clip(self.sun_elevation_deg / 6.0, 0.0, 1.0))
        strength = 1.25 * (1 - 0.55 * self.cloud_cover) * self.direct
        return self.brightness * strength * rise * colour

    @property
    def skylight(self) -> Vector:
        """(3,) ambient light from the sky on a surface that faces up."""
        blue = np.array([0.50, 0.56, 0.66]) * self.day + np.array([0.03, 0.035, 0.06])
        glow = 0.35 * np.array(self.sky_glow)
        return self.brightness * ((1 + 0.35 * self.cloud_cover) * self._greyed(blue) + glow)

    @property
    def zenith(self) -> Vector:
        """(3,) the sky's colour overhead."""
        day, night = np.array([0.16, 0.34, 0.70]), np.array([0.008, 0.01, 0.025])
        light = self._greyed(day * self.day + night * (1 - self.day), 1.6)
        return self.brightness * (light + 0.4 * np.array(self.sky_glow))

    @property
    def horizon(self) -> Vector:
        """(3,) the sky's colour low down, and the haze's: warm at sunrise and sunset."""
        low = float(np.clip(1 - abs(self.sun_elevation_deg) / 18.0, 0.0, 1.0))
        day = np.array([0.62, 0.72, 0.82]) * (1 - low) + np.array([0.85, 0.55, 0.36]) * low
        night = np.array([0.02, 0.022, 0.035])
        light = self._greyed(day * self.day + night * (1 - self.day))
        return self.brightness * (light + np.array(self.sky_glow))

    def _greyed(self, colour: Vector, lift: float = 1.0) -> Vector:
        """A colour blended with its grey; `lift`: how much lighter the grey is."""
        if self.grey == 0:
            return colour
        return colour + self.grey * (lift * colour.mean() - colour)
