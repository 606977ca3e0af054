"""Opens photographs by Pillow, after checks of their format and size.

`Image.open` is not used. Its guard against decompression bombs is a module global that warns at
one limit and raises at twice that, so raising the limit for a collection of large photographs
would reach into every other user of Pillow in the process, and silencing its warning is not
thread-safe. The format is therefore found from the file's first bytes, the plugin of that format
is called by name (none of Pillow's other forty formats, some of which start programs, can be
reached), and the pixels are counted here before any is decoded.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.TiffImagePlugin import TiffImageFile

from vladmap.photos.decoding import bounds, jpeg
from vladmap.photos.decoding.bounds import MAX_PIXELS
from vladmap.schemas.rejects import PhotoError, RejectReason

MIN_SIDE = 16
"""Pixels. Below this no local feature of any detector fits."""


class _TiffImageFile(TiffImageFile):
    """Pillow's TIFF reader checks its global pixel limit while loading; ours has been checked."""

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.core.new(self.mode, self._tile_size)
        super().load_prepare()


TRANSPARENT_MODES = ("RGBA", "LA", "PA", "RGBa", "La")

# JpegImageFile itself, not Pillow's factory: of a multi-picture file (MPO, Ultra HDR) the first
# picture is the photograph, the others are previews, depth or gain maps.
_OPENERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "TIFF": _TiffImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BMP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)


def sniff_format(data: bytes) -> str | None:
    """Name of the format that the first bytes announce: JPEG, PNG, TIFF, WEBP, BMP or None."""
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] in _TIFF_MAGIC:
        return "TIFF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    # Two letters are weak evidence ("BMW parked here"): the size of the next header decides.
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    return None


def open_photo(data: bytes, *, max_pixels: int = MAX_PIXELS) -> ImageFile.ImageFile:
    """Open a photograph without decoding its pixels.

    Raises PhotoError: EMPTY_FILE; NOT_AN_IMAGE (the detail says what the bytes look like);
    TRUNCATED when the file ends before its pixels do; TOO_MANY_PIXELS; TOO_SMALL; TOO_COSTLY when
    decoding takes more than `photos.decoding.bounds` allows; DECODE_FAILED when its header makes no
    sense.
    """
    if not data:
        raise PhotoError(RejectReason.EMPTY_FILE, "the file has 0 bytes")
    name = sniff_format(data)
    if name is None:
        raise PhotoError(
            RejectReason.NOT_AN_IMAGE,
            f"{_look(data)}; photographs are JPEG, PNG, TIFF, WebP or BMP",
        )
    ended, parts = True, None
    if name == "JPEG":
        parts = bounds.walk_jpeg(data)
        bounds.require_sane_jpeg(parts)
        ended = _has_end_of_jpeg(data, parts)
    if name == "WEBP" and len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise PhotoError(RejectReason.TRUNCATED, "the WebP file is shorter than its header says")
    try:
        with decoding_errors(name):
            image = _OPENERS[name](io.BytesIO(data))
    except PhotoError as error:
        if not ended:
            raise PhotoError(RejectReason.TRUNCATED, _NO_END) from error
        raise
    width, height = image.size
    if width * height > max_pixels:
        raise PhotoError(
            RejectReason.TOO_MANY_PIXELS,
            f"{width}x{height} is {width * height:,} pixels, the limit is {max_pixels:,}; "
            "raise it with --max-pixels",
        )
    if min(width, height) < MIN_SIDE:
        raise PhotoError(
            RejectReason.TOO_SMALL,
            f"{width}x{height} pixels; a side needs at least {MIN_SIDE}",
        )
    transparent = image.mode in TRANSPARENT_MODES or "transparency" in image.info
    bounds.require_memory(name, image.mode, transparent, image.size, data, max_pixels, parts)
    if not ended:
        lost = f"about {100 * jpeg.lost_share(data):.0f} % of its data is lost"
        raise PhotoError(RejectReason.TRUNCATED, f"{_NO_END}: {lost}")
    return image


@contextmanager
def decoding_errors(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises on a broken file into TRUNCATED or DECODE_FAILED.

    Pillow's plugins let through what their parsing happens to raise (OSError, SyntaxError,
    struct.error, KeyError, ...), so only Exception is wide enough here.
    """
    try:
        yield
    except PhotoError:
        raise
    except MemoryError as error:
        raise PhotoError(
            RejectReason.TOO_COSTLY, f"decoding this {name} takes more memory than it may"
        ) from error
    except Exception as error:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        if _means_truncated(text):
            raise PhotoError(
                RejectReason.TRUNCATED, f"the {name} file ends too early: {text}"
            ) from error
        raise PhotoError(
            RejectReason.DECODE_FAILED, f"the {name} file does not decode: {text}"
        ) from error


def _means_truncated(text: str) -> bool:
    lowered = text.lower()
    signs = ("truncated", "not enough", "unexpected end", "eof", "buffer is not large enough")
    return any(sign in lowered for sign in signs)


_NO_END = "the JPEG file ends before its end-of-image marker"


def _has_end_of_jpeg(data: bytes, parts: jpeg.Structure) -> bool:
    """Whether an end-of-image marker follows the start of the scan.

    libjpeg is content once every block is filled, and a download that was allocated in full but
    not finished fills them from its zero padding: such a file decodes without complaint, into a
    picture with a false lower part. Entropy-coded data never holds the marker by accident, since
    a 0xFF byte in it is followed by a stuffed zero.
    """
    if parts.end is not None:
        return bool(parts.scans) or parts.stray > 0
    if parts.scans:
        return data.find(b"\xff\xd9", parts.scans[0][0]) >= 0
    # Segment lengths that are wrong: the decoder is the judge of that.
    return parts.stray > 0


_OTHER_MAGIC = (
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"8BPS", "a Photoshop document"),
)
_CONVERT = "; convert it to JPEG with its EXIF, as `heif-convert` does"
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "an AVIF picture" + _CONVERT),
    **dict.fromkeys(
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
        "a HEIC picture" + _CONVERT,
    ),
}


def _look(data: bytes) -> str:
    """What bytes that are no photograph look like, in a phrase for the rejects table."""
    head = data[:1024]
    for magic, phrase in _OTHER_MAGIC:
        if head.startswith(magic):
            return phrase
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "a video (ISO media file)")
    if not head.strip(b"\0"):
        return "nothing but zero bytes"
    text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").strip()
    start = text[:200].replace("\n", " ").strip()
    lowered = text.lower()
    if lowered.startswith("<!doctype html") or "<html" in lowered:
        return "an HTML page, perhaps a server's error message"
    if lowered.startswith("version https://git-lfs"):
        return "a Git LFS pointer; fetch the file itself with `git lfs pull`"
    if lowered.startswith(("<?xml", "<error")):
        return "an XML document, perhaps a store's error message"
    if start[:1] in ("{", "["):
        return "JSON text"
    printable = sum(letter.isprintable() or letter.isspace() for letter in text)
    if text and printable > 0.95 * len(text) and "\ufffd" not in text[:-4]:
        return f"text that begins with {start[:40]!r}"
    return f"unknown binary data that begins with {head[:8].hex(' ')}"
