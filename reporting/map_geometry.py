"""Where images are drawn: positions, distances and headings as arrays."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from vladmap.geodesy.wgs84 import MEAN_RADIUS

Floats = NDArray[np.float64]

_MERCATOR_LIMIT_DEG = 85.0


@dataclasses.dataclass(frozen=True)
class LocalMercator:
    """Mercator about a centre and scaled there to true metres.

    It keeps angles everywhere, so that headings are right, and distances near the centre, so that
    the scale bar is right for a city. Longitudes are taken relative to the centre: a collection
    across the antimeridian stays in one piece.
    """

    latitude: float
    longitude: float

    @classmethod
    def about(cls, latitude: Floats, longitude: Floats) -> LocalMercator:
        """The projection about the mean of positions in degrees; NaN are left out."""
        there = np.isfinite(latitude) & np.isfinite(longitude)
        if not there.any():
            return cls(0.0, 0.0)
        angle = np.radians(longitude[there])
        # The mean direction, not the mean number: 179.9 and -179.9 lie about 180, not about 0.
        centre = np.degrees(np.arctan2(np.sin(angle).mean(), np.cos(angle).mean()))
        return cls(float(latitude[there].mean()), float(centre))

    def project(self, latitude: Floats, longitude: Floats) -> tuple[Floats, Floats]:
        """East and north in metres of positions in degrees; NaN stays NaN."""
        scale = MEAN_RADIUS * np.cos(np.radians(np.clip(self.latitude, -85.0, 85.0)))
        east = scale * np.radians(unwrap_longitude(longitude - self.longitude))
        north = scale * (_mercator(latitude) - _mercator(np.float64(self.latitude)))
        return east, np.asarray(north)


def unwrap_longitude(difference: Floats) -> Floats:
    """A difference of longitudes in degrees, brought to -180 (with it) to 180 (without it)."""
    return (difference + 180.0) % 360.0 - 180.0


def _mercator(latitude: Floats | np.float64) -> Floats:
    clipped = np.clip(latitude, -_MERCATOR_LIMIT_DEG, _MERCATOR_LIMIT_DEG)
    return np.asarray(np.arcsinh(np.tan(np.radians(clipped))))


def flatten_models(positions: Floats, models: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """A plane drawing of models that have no place on Earth: (N, 3) positions to x and y.

    Each model is seen along the normal of the plane that fits its centres best, scaled to 100 units
    across, and set beside the one before it: without GPS a model's orientation, its scale and its
    place among the others mean nothing.
    """
    flat = np.full((len(positions), 2), np.nan)
    left = 0.0
    for model in np.unique(models):
        of_model = models == model
        centred = positions[of_model] - positions[of_model].mean(axis=0)
        _, _, axes = np.linalg.svd(centred, full_matrices=True)
        # An axis's sign is free; a positive largest component makes the drawing repeatable.
        signs = np.sign(axes[np.arange(3), np.abs(axes).argmax(axis=1)])
        plane = centred @ (axes * signs[:, None])[:2].T
        plane -= plane.min(axis=0)
        extent = plane.max()
        flat[of_model] = plane * (100.0 / extent if extent > 0 else 1.0) + [left, 0.0]
        left = float(flat[of_model, 0].max()) + 20.0
    return flat[:, 0], flat[:, 1]
