"""Photographs that a job must survive: bad ones, each for its reason, and odd ones that are fine.

Shared by the tests of this room and by the tests of whole jobs.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from vladmap.schemas.rejects import RejectReason

ORIENTED = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: np.swapaxes(upright, 0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(np.swapaxes(upright, 0, 1), 2),
    8: lambda upright: np.rot90(upright, -1),
}
"""Stored pixels of an upright (H, W, ...) array under each EXIF orientation."""


def texture(seed: int, width: int = 192, height: int = 144) -> np.ndarray:
    """(H, W, 3) uint8: smooth random blobs, so that lossy codecs keep it and SIFT finds corners."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 12, width // 12, 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def degrees_to_rationals(degrees: float) -> tuple[IFDRational, IFDRational, IFDRational]:
    """Degrees, minutes and seconds (to 1e-6 s) of an absolute angle, as EXIF holds them."""
    micro = round(abs(degrees) * 3600e6)
    whole, micro = divmod(micro, 3_600_000_000)
    minutes, micro = divmod(micro, 60_000_000)
    return IFDRational(whole, 1), IFDRational(minutes, 1), IFDRational(micro, 1_000_000)


def gps_tags(latitude: float, longitude: float, **tags: Any) -> dict[int, Any]:
    """The GPS directory of a position; further tags by the names of `ExifTags.GPS`."""
    directory = {
        ExifTags.GPS.GPSLatitudeRef: "S" if math.copysign(1, latitude) < 0 else "N",
        ExifTags.GPS.GPSLatitude: degrees_to_rationals(latitude),
        ExifTags.GPS.GPSLongitudeRef: "W" if math.copysign(1, longitude) < 0 else "E",
        ExifTags.GPS.GPSLongitude: degrees_to_rationals(longitude),
    }
    return {**directory, **{ExifTags.GPS[name]: value for name, value in tags.items()}}


def exif_block(
    *,
    base: dict[int, Any] | None = None,
    details: dict[int, Any] | None = None,
    gps: dict[int, Any] | None = None,
) -> bytes:
    """An EXIF block of the three directories.

    As bytes: Pillow's PNG and TIFF writers leave out what an Exif object holds of GPS.
    """
    exif = Image.Exif()
    exif.update(base or {})
    if details:
        exif.get_ifd(ExifTags.IFD.Exif).update(details)
    if gps:
        exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps)
    return exif.tobytes()


def encode(pixels: np.ndarray | Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """The bytes of a file of one of Pillow's formats."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    if kind == "JPEG":
        options.setdefault("quality", 92)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG from its raw, filtered rows: kinds and sizes that Pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header)]
        + [chunk(each[:4], each[4:]) for each in extra]
        + [chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b"")]
    )


def png_bomb(side: int = 20_000) -> bytes:
    """A valid PNG of some 50 kB that holds side x side black pixels (400 million)."""
    return png(side, side, 1, 0, bytes((side // 8 + 1) * side))


def jpeg_bomb(side: int = 65_500) -> bytes:
    """A JPEG of some 2 kB that says it is side x side pixels (4.3 thousand million)."""
    data = bytearray(encode(texture(0)))
    start_of_frame = data.index(b"\xff\xc0")
    data[start_of_frame + 5 : start_of_frame + 9] = struct.pack(">HH", side, side)
    return bytes(data)


_HTML = b"""<!DOCTYPE html>
<html><head><title>503 Service Unavailable</title></head>
<body><h1>503</h1><p>Try again later.</p></body></html>
"""


@functools.cache
def bad_files() -> dict[str, tuple[bytes, RejectReason]]:
    """name -> (bytes, the reason it is rejected for), of every kind of bad file."""
    jpeg = encode(texture(1))
    return {
        "empty.jpg": (b"", RejectReason.EMPTY_FILE),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], RejectReason.TRUNCATED),
        "truncated_in_header.jpg": (jpeg[:40], RejectReason.TRUNCATED),
        "zero_padded.jpg": (
            jpeg[: len(jpeg) // 2] + bytes(len(jpeg) // 2),
            RejectReason.TRUNCATED,
        ),
        "truncated.png": (encode(texture(2), "PNG")[:20_000], RejectReason.TRUNCATED),
        "text.jpg": (b"This is not a photograph.\n" * 20, RejectReason.NOT_AN_IMAGE),
        "page.jpg": (_HTML, RejectReason.NOT_AN_IMAGE),
        "animation.jpg": (encode(texture(3), "GIF"), RejectReason.NOT_AN_IMAGE),
        "bomb.png": (png_bomb(), RejectReason.TOO_MANY_PIXELS),
        "bomb.jpg": (jpeg_bomb(), RejectReason.TOO_MANY_PIXELS),
        "one_pixel.jpg": (encode(texture(4)[:1, :1]), RejectReason.TOO_SMALL),
    }


def write_bad_inputs(folder: Path | str) -> dict[str, RejectReason]:
    """Write every bad input into a folder: name -> the reason it is to be rejected for.

    `folder.jpg` is a directory. A file that may not be read is left to the caller: permissions
    mean nothing to some users and file systems.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    reasons = {}
    for name, (data, reason) in bad_files().items():
        (root / name).write_bytes(data)
        reasons[name] = reason
    (root / "folder.jpg").mkdir(exist_ok=True)
    reasons["folder.jpg"] = RejectReason.NOT_A_FILE
    return reasons


@dataclasses.dataclass(frozen=True)
class Accepted:
    """What ingest has to say of an odd input: upright pixels, degrees or None."""

    width: int
    height: int
    position: tuple[float, float] | None
    position_invalid: bool = False


def write_odd_inputs(folder: Path | str) -> dict[str, Accepted]:
    """Write every odd but good input into a folder: relative path -> what it is.

    No two have the same bytes, and none is a duplicate of a bad one.
    """
    root = Path(folder)
    written: dict[str, Accepted] = {}

    def write(
        name: str,
        data: bytes,
        position: tuple[float, float] | None = None,
        *,
        invalid: bool = False,
        size: tuple[int, int] = (192, 144),
    ) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        written[name] = Accepted(*size, position, invalid)

    seeds = iter(range(100, 1_000))

    def picture() -> np.ndarray:
        return texture(next(seeds))

    here = (55.7, 13.19)
    exif = exif_block(gps=gps_tags(*here))

    # Kinds of pixels.
    kinds: dict[str, Callable[[], bytes]] = {
        "grey.jpg": lambda: encode(picture()[..., 0], exif=exif),
        "cmyk.jpg": lambda: encode(Image.fromarray(picture()).convert("CMYK"), exif=exif),
        "progressive.jpg": lambda: encode(picture(), exif=exif, progressive=True),
        "sixteen_bits.png": lambda: encode(
            picture()[..., 0].astype(np.uint16) * 257, "PNG", exif=exif
        ),
        "palette.png": lambda: encode(Image.fromarray(picture()).quantize(64), "PNG", exif=exif),
        "alpha.png": lambda: encode(
            np.dstack([picture(), np.full((144, 192), 200, np.uint8)]), "PNG", exif=exif
        ),
        "grey_alpha.png": lambda: encode(
            Image.fromarray(picture()).convert("LA"), "PNG", exif=exif
        ),
        "photo.tif": lambda: encode(picture(), "TIFF", exif=exif),
        "photo.webp": lambda: encode(picture(), "WEBP", exif=exif, quality=90),
    }
    for name, make in kinds.items():
        write(name, make(), here)
    write("photo.bmp", encode(picture(), "BMP"))
    write("no_exif.jpg", encode(picture()))

    # The eight ways to hold a camera.
    for orientation, store in ORIENTED.items():
        turned = exif_block(base={ExifTags.Base.Orientation: orientation}, gps=gps_tags(*here))
        stored = np.ascontiguousarray(store(picture()))
        write(f"orientation_{orientation}.jpg", encode(stored, exif=turned), here)

    # Names.
    for name in (
        "Östra Mårtensgatan, Lund.jpg",
        "東京 駅前.jpg",
        "with  spaces & signs #1 100%.jpg",
        "UPPER.JPG",
        "Mixed.JpEg",
        "left/0001.jpg",
        "right/0001.jpg",
        "deep/er/and deeper/0001.jpg",
    ):
        write(name, encode(picture(), exif=exif), here)

    # Positions that are none.
    def positioned(gps: dict[int, Any]) -> bytes:
        return encode(picture(), exif=exif_block(gps=gps))

    not_a_number = (IFDRational(0, 0), IFDRational(0, 0), IFDRational(0, 0))
    write("gps_zero.jpg", positioned(gps_tags(0.0, 0.0)), invalid=True)
    write(
        "gps_nan.jpg",
        positioned({**gps_tags(*here), ExifTags.GPS.GPSLatitude: not_a_number}),
        invalid=True,
    )
    write("gps_out_of_range.jpg", positioned(gps_tags(91.0, 13.0)), invalid=True)
    write("gps_out_of_range_east.jpg", positioned(gps_tags(55.0, 181.0)), invalid=True)

    # Positions at the seams of the world.
    for name, position in {
        "southern.jpg": (-33.8688, 151.2093),
        "western.jpg": (46.162148, -1.139271),
        "southern_western.jpg": (-34.6037, -58.3816),
        "antimeridian_west.jpg": (-16.8, 179.9995),
        "antimeridian_east.jpg": (-16.8, -179.9995),
        "antimeridian_180.jpg": (-16.8, 180.0),
        "utm_zone_32.jpg": (55.0, 11.9995),
        "utm_zone_33.jpg": (55.0, 12.0005),
    }.items():
        write(name, positioned(gps_tags(*position)), position)
    return written
