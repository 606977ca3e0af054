"""Colours of the final models' points, from their photographs as they are read upright."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vladmap.atlas.photographs import load_ahead
from vladmap.console import counter as progress
from vladmap.features.colmap import pycolmap
from vladmap.mapping.colours import PointColours

# libjpeg is asked for twice this: a photograph of 12 megapixels then comes at half its size.
_LONG_SIDE_PX = 1000


def colour_models(
    models: Sequence[pycolmap.Reconstruction],
    by_name: Mapping[str, Mapping[str, Any]],
    max_pixels: int,
    threads: int,
) -> dict[str, Any]:
    """Colour the points of models in place; `by_name` has the row of `images/` of each image.

    Each photograph is decoded once, reduced. One that cannot be read any more is left out. Returns
    `unreadable`, the reason of each of those by name, and `points_without`, the count of points
    that no other photograph shows: they stay black.
    """
    colours = PointColours(models)
    names = colours.names()
    unreadable: dict[str, str] = {}
    with ThreadPoolExecutor(threads) as pool:
        rows = [dict(by_name[name]) for name in names]
        photos = load_ahead(rows, max_pixels, pool, 2 * threads, _reduced)
        for name, photo in zip(names, photos, strict=True):
            if photo.pixels is None:
                unreadable[name] = str(photo.error)
            else:
                colours.add(name, photo.pixels)
            progress.advance()
    return {"unreadable": unreadable, "points_without": colours.finish()}


def _reduced(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, _LONG_SIDE_PX / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
