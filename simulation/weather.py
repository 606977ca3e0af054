"""The light, weather, season and traffic of a visit to a city, by condition."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vladmap.simulation.conditions import Conditions
from vladmap.simulation.trees import Season

_LAMPS = ((1.0, 0.62, 0.26), (1.0, 0.74, 0.46), (0.95, 0.95, 1.0), (0.8, 0.95, 0.85))


@dataclass(frozen=True)
class Weather:
    """All that a condition decides. `exposure`: the mean grey level (0 to 1) that a camera aims
    at; `flakes` and `streaks`: share of the picture that falling snow or rain crosses."""

    light: Conditions
    season: Season = "leaf"
    fullness: float = 1.0  # share of the leaves
    lit: float = 0.0  # share of the windows
    traffic: float = 1.0
    exposure: float = 0.45
    flakes: float = 0.0
    streaks: float = 0.0


def draw_weather(condition: str, rng: np.random.Generator) -> Weather:
    """One visit's weather under one of `CONDITIONS`."""

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    clouds_at = (between(0, 1), between(0, 1))
    azimuth, traffic = between(0.0, 360.0), between(0.3, 1.6)
    exposure = between(0.36, 0.52)

    def sky(**settings: float) -> Conditions:
        usual = {
            "sun_azimuth_deg": azimuth,
            "sun_elevation_deg": between(20.0, 62.0),
            "cloud_cover": between(0.0, 0.75),
            "haze_distance_m": between(400.0, 1500.0),
        }
        return replace(Conditions(clouds_at=clouds_at), **(usual | settings))  # type: ignore[arg-type]

    def dull(**settings: float) -> Conditions:
        usual = {
            "direct": 0.0,
            "grey": between(0.7, 1.0),
            "cloud_cover": between(0.85, 1.3),
            "haze_distance_m": between(200.0, 700.0),
        }
        return sky(**{**usual, **settings})

    if condition == "overcast":
        return Weather(dull(), traffic=traffic, exposure=exposure)
    if condition == "rain":
        light = dull(wet=between(0.6, 1.0), haze_distance_m=between(90.0, 350.0))
        return Weather(
            light, traffic=traffic, exposure=between(0.28, 0.42), streaks=between(0.0, 0.05)
        )
    if condition == "fog":
        light = dull(haze_distance_m=between(14.0, 60.0), grey=between(0.8, 1.0))
        return Weather(light, traffic=traffic, exposure=between(0.42, 0.62))
    if condition == "snow":
        sunny = rng.random() < 0.35
        snow = between(0.65, 1.0)
        low = between(8.0, 25.0)
        light = sky(sun_elevation_deg=low, snow=snow) if sunny else dull(snow=snow)
        flakes = 0.0 if sunny or rng.random() < 0.4 else between(0.002, 0.02)
        return Weather(
            light, "bare", traffic=0.7 * traffic, exposure=between(0.45, 0.65), flakes=flakes
        )
    if condition == "winter":
        low = between(6.0, 22.0)
        snow = float(rng.choice([0.0, 0.0, between(0.15, 0.45)]))
        light = sky(sun_elevation_deg=low, snow=snow) if rng.random() < 0.6 else dull(snow=snow)
        return Weather(light, "bare", traffic=traffic, exposure=exposure)
    if condition == "autumn":
        light = sky(sun_elevation_deg=between(10.0, 35.0)) if rng.random() < 0.6 else dull()
        return Weather(light, "autumn", between(0.35, 0.9), traffic=traffic, exposure=exposure)
    if condition == "dusk":
        glow = np.array([0.1, 0.05, 0.02]) * between(0.0, 1.0)
        light = Conditions(
            sun_azimuth_deg=azimuth,
            sun_elevation_deg=between(-6.0, 4.0),
            cloud_cover=between(0.0, 0.8),
            haze_distance_m=between(300.0, 1200.0),
            clouds_at=clouds_at,
            lamps=between(0.1, 0.6),
            lamp_colour=_LAMPS[rng.integers(len(_LAMPS))],
            sky_glow=(float(glow[0]), float(glow[1]), float(glow[2])),
        )
        return Weather(light, lit=between(0.1, 0.4), traffic=traffic, exposure=between(0.26, 0.42))
    if condition == "night":
        tint = np.array(_LAMPS[rng.integers(len(_LAMPS))])
        glow = tint * between(0.0, 0.05)
        light = Conditions(
            sun_azimuth_deg=azimuth,
            sun_elevation_deg=-25.0,
            cloud_cover=between(0.0, 1.0),
            haze_distance_m=between(250.0, 1200.0),
            clouds_at=clouds_at,
            lamps=between(0.8, 1.8),
            lamp_colour=(float(tint[0]), float(tint[1]), float(tint[2])),
            sky_glow=(float(glow[0]), float(glow[1]), float(glow[2])),
            wet=float(rng.choice([0.0, 0.0, 0.8])),
        )
        return Weather(
            light, lit=between(0.12, 0.5), traffic=0.6 * traffic, exposure=between(0.2, 0.34)
        )
    return Weather(sky(), traffic=traffic, exposure=exposure)
