"""A tiny set in the UTM layout: overlapping pictures of walls on both sides of a zone boundary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyproj
from PIL import Image

from tests.photos.bad_photos import encode, texture

PLACES = 6

_LATITUDE = 48.2
_STEP = 1e-3  # degrees east: 74 m
_FIRST_LONGITUDE = 11.99792  # the third place's query lies beyond the boundary at 12 degrees


def photo_name(longitude: float, note: str = "", pano: str = "p") -> str:
    """The name of a photograph taken at this longitude, in its own UTM zone."""
    zone = 32 if longitude < 12 else 33
    east, north = pyproj.Proj(proj="utm", zone=zone, ellps="WGS84")(longitude, _LATITUDE)
    fields = [f"{east:.2f}", f"{north:.2f}", str(zone), "U", "", "", pano, *[""] * 6, note]
    return "@" + "@".join(fields) + "@.jpg"


def write_places(root: Path, split: str = "test") -> None:
    """PLACES pairs of photographs of one wall each, 11 m apart and of crops 6 pixels apart."""
    for part, east, left in (("database", 0.0, 0), ("queries", 1.5e-4, 6)):
        folder = root / "images" / split / part
        folder.mkdir(parents=True)
        for place in range(PLACES):
            wall = Image.fromarray(texture(place, 204, 144))
            longitude = _FIRST_LONGITUDE + _STEP * place + east
            note = ("day", "night")[place % 2] if part == "queries" else ""
            picture = wall.crop((left, 0, left + 192, 144))
            if note == "night":
                picture = Image.fromarray((np.asarray(picture) * 0.6).astype(np.uint8))
            (folder / photo_name(longitude, note, f"p{place}")).write_bytes(encode(picture))
