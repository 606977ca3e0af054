"""Decodes photographs to upright 8-bit RGB at a given size, and checks that files decode."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFile

from vladmap.photos.decoding import apart, bounds, jpeg
from vladmap.photos.decoding.bounds import MAX_PIXELS
from vladmap.photos.decoding.opening import (
    TRANSPARENT_MODES,
    decoding_errors,
    open_photo,
    sniff_format,
)
from vladmap.photos.headers.exif import read_orientation
from vladmap.photos.headers.header import Header, header_of, judged_by_pixels, upright_size

Size = tuple[int, int]
"""(width, height) in pixels."""

BACKGROUND = (255, 255, 255)
"""What shows through transparent pixels: white, as in a viewer."""

SHARPNESS_LONG_SIDE = 512
"""Pixels. Images are reduced to this before their sharpness is measured."""

# Behind a reduced decoding of at least twice the size it stays within 45 dB of the same resize of
# the full decoding; a box filter reaches 37 dB. Bicubic takes 1.8 times as long.
_FILTER = Image.Resampling.BILINEAR
# The sharpness stays within 4 % behind a reduced decoding.
_SHARPNESS_FILTER = Image.Resampling.BICUBIC
_REDUCING_GAP = 3.0

_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}


def decode_rgb(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    target: Callable[[int, int], Size] | None = None,
) -> np.ndarray:
    """Decode a photograph into (H, W, 3) uint8 RGB, upright by its EXIF orientation.

    `target` maps the upright (width, height) to the size that is wanted; without it the image keeps
    its own. Transparency is laid on white; 16-bit grey is scaled by 255/65535, floating point and
    32-bit grey by the least of 1, 255, 65535, 2^31 - 1 that holds all of its values; CMYK is
    converted without its colour profile, a JPEG's inverted as Adobe writes them.

    Raises what `open_photo` raises, TRUNCATED where the pixels end too early, DECODE_FAILED where
    they do not decode, TOO_COSTLY where that takes too much time or memory, and CRASHED; what
    `target` raises is not caught. Thread-safe. What can take long is decoded in another process,
    see `photos.decoding.apart`.
    """
    if bounds.decodes_apart(sniff_format(data), data):
        pixels: np.ndarray = apart.decode(data, max_pixels, target)
        return pixels
    return decode_here(data, max_pixels, target)


def decode_here(
    data: bytes, max_pixels: int, target: Callable[[int, int], Size] | None
) -> np.ndarray:
    """`decode_rgb` in this process, however long it takes."""
    image = open_photo(data, max_pixels=max_pixels)
    if image.format == "PNG":
        # Pillow looks for EXIF behind the pixels, and a second load does not fail as the first did.
        with decoding_errors("PNG"):
            image.load()
    orientation = _orientation_to_apply(image)
    wanted = None
    if target is not None:
        width, height = target(*upright_size(image, orientation))
        wanted = (height, width) if orientation >= 5 else (width, height)
    with decoding_errors(image.format or "image"):
        pixels = _load(image, data, wanted)
        if orientation in _UPRIGHT:
            pixels = _UPRIGHT[orientation](pixels)
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, axis=2)
        return np.require(pixels, requirements=["C", "W"])


def inspect(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[Header, float]:
    """Header and sharpness of a photograph, and the proof that the whole of it decodes.

    A large JPEG is reconstructed at 1/2, 1/4 or 1/8 of its size, which saves the inverse transform
    and the colours but reads every code of the entropy-coded stream: a file that ends too early or
    is damaged in the middle is found all the same. Raises what `decode_rgb` raises.
    """
    if bounds.decodes_apart(sniff_format(data), data):
        outcome: tuple[Header, float] = apart.inspect(data, max_pixels)
        return outcome
    return inspect_here(data, max_pixels)


def inspect_here(data: bytes, max_pixels: int) -> tuple[Header, float]:
    """`inspect` in this process, however long it takes."""
    image = open_photo(data, max_pixels=max_pixels)
    with decoding_errors(image.format or "image"):
        if image.format == "PNG":
            # A PNG may keep its metadata behind the pixels.
            image.load()
        header = header_of(image)
        grey = _load(image, data, _within(image.size, SHARPNESS_LONG_SIDE), mode="L")
        # `judged_by_pixels` needs the sides swapped as in the header; mirroring does not matter.
        turned = (header.width < header.height) != (grey.shape[1] < grey.shape[0])
        return judged_by_pixels(header, grey.T if turned else grey), _laplacian_variance(grey)


def sharpness(grey: np.ndarray) -> float:
    """Variance of the Laplacian of an (H, W) uint8 image, in squared grey levels.

    Measured at a long side of SHARPNESS_LONG_SIDE pixels, to which larger images are reduced, so
    that it is comparable between cameras; a smaller image is measured as it is. The focus measure
    LAPV of Pertuz, Puig and Garcia, "Analysis of focus measure operators for shape-from-focus",
    Pattern Recognition 46(5), 2013; the four-neighbour Laplacian, without the border.
    """
    image = Image.fromarray(np.ascontiguousarray(grey, dtype=np.uint8))
    wanted = _within(image.size, SHARPNESS_LONG_SIDE)
    if wanted != image.size:
        image = image.resize(wanted, _SHARPNESS_FILTER, reducing_gap=_REDUCING_GAP)
    return _laplacian_variance(np.asarray(image))


def _laplacian_variance(grey: np.ndarray) -> float:
    if min(grey.shape) < 3:
        return 0.0
    values = grey.astype(np.int16)
    laplacian = (
        values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:]
        - 4 * values[1:-1, 1:-1]
    )  # fmt: skip
    return float(laplacian.var(dtype=np.float64))


def _within(size: Size, long_side: int) -> Size:
    """`size` reduced to a long side, never enlarged."""
    scale = min(1.0, long_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _orientation_to_apply(image: ImageFile.ImageFile) -> int:
    # Pillow's TIFF reader, alone among them, turns the pixels itself.
    return 1 if image.format == "TIFF" else read_orientation(image)


def _load(
    image: ImageFile.ImageFile, data: bytes, wanted: Size | None, mode: str | None = None
) -> np.ndarray:
    """Decode in the stored orientation, at the wanted size: (H, W) or (H, W, 3) uint8.

    libjpeg can leave out the high frequencies of each block and so hand over a JPEG at 1/2, 1/4 or
    1/8. It is asked for twice the wanted size at least, so that the last step is always an
    antialiased resize of ours. `mode` L, for the sharpness, gives the luminance alone.
    """
    box: tuple[float, float, float, float] | None = None
    pixels: np.ndarray | None = None
    if image.format == "JPEG":
        reduced = wanted is not None and 2 * wanted[0] <= image.size[0]
        drafted = image.draft(
            mode, (2 * wanted[0], 2 * wanted[1]) if reduced and wanted is not None else None
        )
        # The exact extent: the reduced size is rounded up to whole pixels.
        box = drafted[1] if drafted is not None and reduced else None
        pixels = jpeg.decode(data, image.mode, image.size)
    if pixels is None or pixels.shape[2:] == (4,):
        # CMYK is Pillow's to convert, and what TurboJPEG does not know to decode.
        image.load()
        picture = _to_eight_bits(image)
    elif wanted in (None, pixels.shape[1::-1]) and (mode is None or pixels.ndim == 2):
        return pixels
    else:
        picture = Image.fromarray(pixels)
    if wanted is not None and wanted != picture.size:
        # Enlarged as place recognition fares best: see models.base.resize.
        enlarged = wanted[0] > picture.width
        reducing = _SHARPNESS_FILTER if mode == "L" else _FILTER
        resampling = Image.Resampling.HAMMING if enlarged else reducing
        picture = picture.resize(wanted, resampling, box=box, reducing_gap=_REDUCING_GAP)
    return np.array(picture if mode is None else picture.convert(mode))


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """An L or RGB image of any image that Pillow decodes."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_scaled_to_eight_bits(np.asarray(image)))
    if image.mode in TRANSPARENT_MODES or "transparency" in image.info:
        if image.mode == "La":
            image = image.convert("LA")
        layer = image.convert("RGBA")
        background = Image.new("RGBA", layer.size, (*BACKGROUND, 255))
        return Image.alpha_composite(background, layer).convert("RGB")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _scaled_to_eight_bits(values: np.ndarray) -> np.ndarray:
    """(H, W) uint8 of 16-bit, 32-bit or floating-point grey, scaled and not clipped."""
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return ((values.astype(np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8)
    numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    peak = float(numbers.max(initial=0.0))
    scales: tuple[float, ...] = (255.0, 65_535.0, 2.0**31 - 1)
    if values.dtype.kind == "f":
        scales = (1.0, *scales)
    full = next((scale for scale in scales if peak <= scale), peak)
    return np.rint(np.clip(numbers, 0.0, full) * (255.0 / full)).astype(np.uint8)
