"""JPEGs as disks, cards and downloads damage them, from rendered pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from tests.photos.bad_photos import encode

KINDS = ("zeros", "foreign", "foreign_jpeg", "cut", "half_then_end_marker", "repeated")
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"subsampling": 0},
    {"progressive": True},
    {"restart_marker_rows": 1},
    {"optimize": True, "quality": 75},
)


def picture(seed: int, width: int = 640, height: int = 480) -> Image.Image:
    """A picture with the spectrum of natural scenes: amplitudes that fall as 1 / frequency."""
    generator = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.rfftfreq(width), np.fft.fftfreq(height)))
    frequency[0, 0] = np.inf
    field = np.stack(
        [
            np.fft.irfft2(np.fft.rfft2(generator.standard_normal((height, width))) / frequency)
            for _ in range(3)
        ],
        axis=-1,
    )
    # The channels of a photograph have much in common.
    field += 2 * field[..., :1]
    field /= field.std(axis=(0, 1))
    return Image.fromarray(np.clip(128 + 50 * field, 0, 255).astype(np.uint8))


def jpegs(count: int, seed: int = 0) -> Iterator[bytes]:
    """Good JPEGs, baseline and progressive, colour and grey, with and without restart markers."""
    for number in range(count):
        image = picture(seed + number, 400, 300)
        options = dict(OPTIONS[number % len(OPTIONS)])
        if number % 7 == 6:
            image = image.convert("L")
            options.pop("subsampling", None)
        yield encode(image, **options)


def scan_of(data: bytes) -> tuple[int, int]:
    """Start and end of the entropy-coded data, of a progressive file of all its scans."""
    start = data.index(b"\xff\xda")
    return start + 2 + int.from_bytes(data[start + 2 : start + 4], "big"), len(data) - 2


def damaged(data: bytes, kind: str, generator: np.random.Generator, size: int = 2048) -> bytes:
    """A JPEG with `size` bytes damaged somewhere in the middle of its entropy-coded data."""
    start, end = scan_of(data)
    size = min(size, (end - start) // 10)
    at = start + int(generator.uniform(0.2, 0.8) * (end - start))
    if kind == "zeros":
        return data[:at] + bytes(size) + data[at + size :]
    if kind == "foreign":
        return data[:at] + generator.bytes(size) + data[at + size :]
    if kind == "foreign_jpeg":
        other = encode(picture(int(generator.integers(1000, 2000))))
        first = scan_of(other)[0] + 500
        return data[:at] + other[first : first + size] + data[at + size :]
    if kind == "cut":
        return data[:at] + data[at + size :]
    if kind == "half_then_end_marker":
        return data[:at] + b"\xff\xd9"
    if kind == "repeated":
        return data[:at] + data[at - size : at] + data[at:]
    raise ValueError(kind)
