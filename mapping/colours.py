"""Colours of a model's points: the mean of what its photographs show where they see each point.

COLMAP's own reads files by image name and pixels as they are stored; here the pixels come from
whoever can read them, upright, which is the frame that the model's keypoints are in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vladmap.features.colmap import pycolmap

Pixels = NDArray[np.uint8]

# libjpeg is asked for twice this: a photograph of 12 megapixels is then decoded at half its size.
_LONG_SIDE_PX = 1000


class PointColours:
    """Sums of colours over the photographs of some models; each photograph is added once."""

    def __init__(self, models: Sequence[pycolmap.Reconstruction]) -> None:
        self._models = list(models)
        self._ids = [np.array(sorted(model.points3D), np.int64) for model in self._models]
        self._sums = [np.zeros((len(ids), 3)) for ids in self._ids]
        self._counts = [np.zeros(len(ids), np.int64) for ids in self._ids]
        self._images: dict[str, list[tuple[int, int]]] = {}
        for place, model in enumerate(self._models):
            for number in sorted(model.reg_image_ids()):
                self._images.setdefault(model.image(number).name, []).append((place, number))

    def names(self) -> list[str]:
        """Names of the images whose photographs are wanted, sorted."""
        return sorted(self._images)

    def add(self, name: str, pixels: Pixels) -> None:
        """Take a photograph's colours: (H, W, 3) upright RGB, at its own or at a reduced size."""
        for place, number in self._images[name]:
            model = self._models[place]
            image = model.image(number)
            camera = model.camera(image.camera_id)
            seen = image.get_observation_points2D()
            if len(seen) == 0:
                continue
            xy = np.array([point.xy for point in seen])
            ids = np.array([point.point3D_id for point in seen], np.int64)
            rows = np.searchsorted(self._ids[place], ids)
            size = np.array([camera.width, camera.height], np.float64)
            np.add.at(self._sums[place], rows, sample(pixels, xy / size))
            self._counts[place] += np.bincount(rows, minlength=len(self._ids[place]))

    def finish(self) -> int:
        """Give every point its colour; returns how many have none, which stay black."""
        for model, ids, sums, counts in zip(
            self._models, self._ids, self._sums, self._counts, strict=True
        ):
            mean = np.rint(sums / np.maximum(counts, 1)[:, None]).astype(np.uint8)
            for number, colour in zip(ids.tolist(), mean, strict=True):
                model.point3D(number).color = colour
        return int(sum((counts == 0).sum() for counts in self._counts))


def sample(pixels: Pixels, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours (n, 3) at (n, 2) places, x and y from 0 to 1 over the picture, bilinear.

    Places outside take the colour of the border.
    """
    height, width = pixels.shape[:2]
    # The centre of the first pixel lies at 0.5.
    at = np.clip(places * [width, height] - 0.5, 0.0, [width - 1, height - 1])
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, [width - 1, height - 1])
    right, down = (at - low).T[:, :, None]
    top = pixels[low[:, 1], low[:, 0]] * (1 - right) + pixels[low[:, 1], high[:, 0]] * right
    base = pixels[high[:, 1], low[:, 0]] * (1 - right) + pixels[high[:, 1], high[:, 0]] * right
    return np.asarray(top * (1 - down) + base * down)


def colour_models(
    models: Sequence[pycolmap.Reconstruction],
    read: Callable[[Sequence[str]], Iterable[Pixels | Exception]],
) -> dict[str, Any]:
    """Colour the points of models in place; return `unreadable` and `points_without`.

    `read` yields the upright pixels (H, W, 3) of photographs by their names, or the error of one
    that cannot be read any more; each is asked for once. `unreadable` gives the errors by name,
    `points_without` counts the points that no readable photograph shows: they stay black.
    """
    colours = PointColours(models)
    names = colours.names()
    unreadable: dict[str, str] = {}
    for name, pixels in zip(names, read(names), strict=True):
        if isinstance(pixels, Exception):
            unreadable[name] = str(pixels)
        else:
            colours.add(name, pixels)
    return {"unreadable": unreadable, "points_without": colours.finish()}


def reduced_size(width: int, height: int) -> tuple[int, int]:
    """Return the size at which a photograph of a size is read for its colours."""
    scale = min(1.0, _LONG_SIDE_PX / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
