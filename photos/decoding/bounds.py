"""Limits of file size, memory and time for one photograph.

A small file can need much: 34 bytes of WebP three gigabytes, 800 kB of JPEG a minute and a half.
What can be determined without decoding is checked here first; files whose cost cannot be determined
are decoded in a process that can be ended (`photos.decoding.apart`).
"""

from __future__ import annotations

from collections.abc import Iterator

from vladmap.photos.decoding import jpeg
from vladmap.schemas.rejects import PhotoError, RejectReason

MAX_PIXELS = 200_000_000
"""Default of `--max-pixels`: above any street camera."""

SECONDS = 6
"""The limit of processor time for a photograph that is decoded in another process."""

_MEMORY = 1_000_000_000
_BYTES = 256 * 2**20

_MOST_SCANS = 100  # a camera writes one, editors some ten
_MANY_SCANS = 24
_MOST_FILL = 2**16
_MOST_SEGMENTS = 4_096
# Pixels that pass through the entropy decoder: of a progressive file 1 to 2 ms a million and scan.
_LONG_WAY = 1_000_000_000
_LARGE = 50_000_000
_LONG_METADATA = 2**16  # the most that one segment of a JPEG holds
_LONG_HEADER = 2**20

# The peak memory in bytes a pixel of Pillow's conversion to RGB, by the image's mode: an RGB image
# takes four, the final array three, twice; transparency is composited with white by four copies.
_BY_MODE = {
    "1": 7,
    "L": 6,
    "P": 11,
    "RGB": 10,
    "RGBX": 14,
    "YCbCr": 14,
    "LAB": 14,
    "CMYK": 18,
    "I;16": 16,
    "I;16B": 16,
    "I;16L": 16,
    "I": 36,
    "F": 36,
}
_TRANSPARENT = 24
_WEBP_CANVAS = 12


def memory_limit(max_pixels: int) -> int:
    """Bytes that one photograph may take while it is read and decoded.

    A gigabyte; more in proportion where `--max-pixels` is more than MAX_PIXELS.
    """
    return int(_MEMORY * max(1.0, max_pixels / MAX_PIXELS))


def size_limit(max_pixels: int) -> int:
    """Bytes that the file of a photograph may have: 256 MiB, more as `memory_limit` says."""
    return int(_BYTES * max(1.0, max_pixels / MAX_PIXELS))


def require_sane_jpeg(parts: jpeg.Structure) -> None:
    """Raise PhotoError TOO_COSTLY for a JPEG whose structure is made to take long to read."""
    if len(parts.scans) > _MOST_SCANS:
        raise PhotoError(
            RejectReason.TOO_COSTLY,
            f"the JPEG file has more than {_MOST_SCANS} scans, a photograph some ten",
        )
    if parts.fill + parts.stray > _MOST_FILL:
        raise PhotoError(
            RejectReason.TOO_COSTLY,
            f"the JPEG file has more than {_MOST_FILL:,} bytes between its segments that mean "
            "nothing",
        )
    if parts.header > _MOST_SEGMENTS:
        raise PhotoError(
            RejectReason.TOO_COSTLY, f"the JPEG file has more than {_MOST_SEGMENTS:,} segments"
        )


def walk_jpeg(data: bytes) -> jpeg.Structure:
    """The parts of a JPEG, as far as `require_sane_jpeg` needs to see them."""
    return jpeg.structure(data, most_segments=_MOST_SEGMENTS + 1, most_idle=_MOST_FILL)


def require_memory(
    name: str,
    mode: str,
    transparent: bool,
    size: tuple[int, int],
    data: bytes,
    max_pixels: int,
    parts: jpeg.Structure | None = None,
) -> None:
    """Raise PhotoError TOO_COSTLY where decoding takes more than `memory_limit`.

    By the format `name` and Pillow's `mode` for pixels of (width, height) `size`; `parts` are those
    of a JPEG.
    """
    pixels = size[0] * size[1]
    if name == "JPEG" and mode in ("L", "RGB"):
        # One byte a sample, turned upright in a copy; the coefficients of all scans, two bytes.
        progressive = parts is not None and parts.progressive
        coefficients = 2 * _samples(data, parts, pixels) if parts and progressive else 0
        needed = max(6 * pixels, 3 * pixels + coefficients)
    else:
        each = _TRANSPARENT if transparent else _BY_MODE.get(mode, _TRANSPARENT)
        needed = pixels * (each + (_WEBP_CANVAS if name == "WEBP" else 0))
    needed += 2 * len(data)
    limit = memory_limit(max_pixels)
    if needed > limit:
        raise PhotoError(
            RejectReason.TOO_COSTLY,
            f"decoding {size[0]}x{size[1]} pixels of this {name} takes {needed / 1e9:.1f} GB, the "
            f"limit for one photograph is {limit / 1e9:.1f} GB; it grows with --max-pixels",
        )


def _samples(data: bytes, parts: jpeg.Structure, pixels: int) -> int:
    """Samples of all components of a JPEG, from its frame's sampling factors."""
    for marker, start, end in parts.segments:
        if marker in jpeg.FRAMES:
            factors = [data[place] for place in range(start + 11, end, 3)]
            sizes = [(factor >> 4) * (factor & 15) for factor in factors]
            most = max((factor >> 4 for factor in factors), default=1) * max(
                (factor & 15 for factor in factors), default=1
            )
            return int(pixels * sum(sizes) / max(1, most))
    return 3 * pixels


def decodes_apart(name: str | None, data: bytes) -> bool:
    """Whether a file is decoded in another process, since its time or memory cannot be predicted.

    That is so for TIFF and BMP (a file can make their decoders slow), for arithmetic coding, for
    large JPEGs with many scans, and for files with long metadata.
    """
    if name == "JPEG":
        parts = walk_jpeg(data)
        frame = next((segment for segment in parts.segments if segment[0] in jpeg.FRAMES), None)
        if frame is None:
            return False
        marker, start, _ = frame
        height, width = (
            int.from_bytes(data[start + place : start + place + 2], "big") for place in (5, 7)
        )
        long_way = width * height * len(parts.scans) > _LONG_WAY
        header = sum(end - start for _, start, end in parts.segments[: parts.header])
        many = len(parts.scans) > _MANY_SCANS or header > _LONG_HEADER
        return many or long_way or marker in jpeg.ARITHMETIC
    if name == "PNG":
        width, height = (int.from_bytes(data[place : place + 4], "big") for place in (16, 20))
        return width * height > _LARGE or _long_metadata(_png_chunks(data), (b"IDAT",), data)
    if name == "WEBP":
        return _long_metadata(_webp_chunks(data), (b"VP8 ", b"VP8L", b"ALPH"), data)
    return name is not None


def _long_metadata(
    chunks: Iterator[tuple[bytes, int]], of_pixels: tuple[bytes, ...], data: bytes
) -> bool:
    """Whether a file's chunks other than those of pixels are long, or all of them very many."""
    for number, (kind, size) in enumerate(chunks):
        if number > 1_000 + len(data) // 4_096:
            return True
        if kind not in of_pixels and size > _LONG_METADATA:
            return True
    return False


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    position = 8
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        yield data[position + 4 : position + 8], size
        position += 12 + size


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    position = 12
    while position + 8 <= len(data):
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        yield data[position : position + 4], size
        position += 8 + size + size % 2
