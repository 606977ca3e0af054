"""A small map in memory: what `MapModel` holds, without files."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from vladmap.geodesy.wgs84 import enu_to_geodetic
from vladmap.localisation.map_view import MapModel
from vladmap.mapping.camera import Camera
from vladmap.mapping.tile_arrays import TileArrays

LENS = Camera("SIMPLE_PINHOLE", 600, 400, (500.0, 300.0, 200.0), True)


class Stored:
    """A model whose frame is a place on earth."""

    number, georegistered = 0, True

    def __init__(self, origin: tuple[float, float, float] = (48.0, 16.0, 200.0)) -> None:
        self.origin = origin

    def geographic(self, points: np.ndarray) -> np.ndarray:
        return enu_to_geodetic(points, self.origin)


def model_of(places: np.ndarray, seen: dict[str, list[tuple[int, int]]]) -> MapModel:
    """A model of photographs that show points: (keypoint, row of the point) of each photograph."""
    images = list(seen)
    joined = [
        (row, keypoint, point)
        for row, image in enumerate(images)
        for keypoint, point in sorted(seen[image])
    ]
    seen_by, keypoint, point = (np.array(column, np.int64) for column in zip(*joined, strict=True))
    arrays = TileArrays(
        np.arange(len(images)),
        np.zeros((len(images), 3)),
        np.tile(np.eye(3), (len(images), 1, 1)),
        np.array([len(seen[image]) for image in images]),
        places,
        seen_by,
        keypoint,
        point,
    )
    rows = {image: row for row, image in enumerate(images)}
    return MapModel(cast(Any, Stored()), arrays, rows, {})
