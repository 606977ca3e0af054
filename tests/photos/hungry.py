"""Photographs that ask for far more time or memory than their size tells."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image

from tests.photos.bad_photos import encode, png, texture

LITTLE = 40_000
"""Repetitions; the files are some hundred kB to a few MB."""


def huge_webp() -> bytes:
    """34 bytes that are 14,000 x 14,000 pixels of one colour (3 GB on Pillow's way to RGB)."""
    side = 14_000
    header = 0x2F | (side - 1) << 8 | (side - 1) << 22
    body = struct.pack("<Q", header)[:5] + b"\x88\x88\x08" + bytes(5)
    chunk = b"VP8L" + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def progressive(scans: int, side: int = 256) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    data = encode(texture(1, side, side), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + (scans * data[last:-2]) + b"\xff\xd9"


def behind_the_start(body: bytes) -> bytes:
    data = encode(texture(2))
    return data[:2] + body + data[2:]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def exif_of_overlapping_values(entries: int) -> bytes:
    """A TIFF block whose every entry claims all of it as its value: entries times its length."""
    size = 14 + 12 * entries
    table = b"".join(
        struct.pack("<HHII", (0x8000 + n) & 0xFFFF, 7, size - 8, 8) for n in range(entries)
    )
    return b"II*\0\x08\0\0\0" + struct.pack("<H", entries) + table + bytes(4)


def bmp_in_runs(width: int = 4_000, height: int = 4_000) -> bytes:
    """A run-length coded BMP in runs of one pixel, which Pillow decodes in Python."""
    body = b"\x01\x07" * (width * height)
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 2835, 2835, 256, 256)
    at = 14 + len(head) + 1024
    return b"BM" + struct.pack("<IHHI", at + len(body), 0, 0, at) + head + bytes(1024) + body


def tiff_in_jpeg(scans: int = 500, side: int = 4_000) -> bytes:
    """A TIFF around a progressive JPEG of many scans, of which libtiff says nothing."""
    grey = io.BytesIO()
    Image.new("L", (side, side), 90).save(grey, "JPEG", progressive=True)
    data = grey.getvalue()
    last = data.rindex(b"\xff\xda")
    data = data[:last] + (scans * data[last:-2]) + b"\xff\xd9"
    tags = (
        (256, 4, 1, side),
        (257, 4, 1, side),
        (258, 3, 1, 8),
        (259, 3, 1, 7),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, side),
        (279, 4, 1, len(data)),
    )
    return b"".join(
        [
            b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)),
            *(struct.pack("<HHII", *tag) for tag in tags),
            bytes(4),
        ]
    )


SEEN: dict[str, Callable[[], bytes]] = {
    "34 bytes of WebP": huge_webp,
    "300 scans": lambda: progressive(300),
    "16 MB of fill": lambda: behind_the_start(b"\xff" * 16_000_000),
    "nothing but fill": lambda: b"\xff\xd8" + b"\xff" * 16_000_000,
    "restart markers": lambda: behind_the_start(b"\xff\xd0" * LITTLE),
    "stuffed zeros": lambda: behind_the_start(b"\xff\xe0\0\x02" + b"\xff\0" * LITTLE),
    "comments": lambda: behind_the_start(b"\xff\xfe\0\x02" * LITTLE),
    "transparent PNG": lambda: png(7_000, 7_000, 8, 6, bytes(28_001) * 7_000),
    "PNG of 16 bits": lambda: png(8_000, 8_000, 16, 0, bytes(16_001) * 8_000),
    "BMP that claims": lambda: (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 14_000, 14_000, 1, 24, 0, 0, 0, 0, 0, 0)
        + bytes(100)
    ),
}
"""Files that are known for what they are before any of them is decoded."""

ENDED: dict[str, Callable[[], bytes]] = {
    "BMP in runs": bmp_in_runs,
    "TIFF around a JPEG": tiff_in_jpeg,
}
"""Files whose decoding has to be ended."""
