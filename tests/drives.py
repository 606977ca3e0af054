"""Small collections of photographs for tests: overlapping crops of one long wall, with GPS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import ExifTags, Image

from tests.photos.bad_photos import encode, exif_block, gps_tags, texture

LATITUDE, LONGITUDE = 48.2, 16.37
STEP_DEG = 2e-5  # some 2 m north


def write_drive(
    folder: Path, count: int, *, start: int = 0, seed: int = 0, headings: Sequence[float] = ()
) -> None:
    """`count` photographs of 256x192 along one wall, every 2 m and every second, from `start`.

    They state the `headings` in turn, or none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wall = Image.fromarray(texture(seed, 4800, 192))
    for number in range(start, start + count):
        left = 40 * number % (4800 - 256)
        crop = wall.crop((left, 0, left + 256, 192))
        turned = {"GPSImgDirection": headings[number % len(headings)]} if headings else {}
        exif = exif_block(
            base={ExifTags.Base.Make: "Test", ExifTags.Base.Model: "Wall"},
            details={
                ExifTags.Base.DateTimeOriginal: f"2024:05:01 12:00:{number:02d}",
                ExifTags.Base.OffsetTimeOriginal: "+00:00",
            },
            gps=gps_tags(LATITUDE + STEP_DEG * number, LONGITUDE, **turned),
        )
        (folder / f"{number:04d}.jpg").write_bytes(encode(crop, exif=exif))
