"""JPEG files that are handed on as they are, for a device that decodes them itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vladmap.photos.decoding import bounds
from vladmap.photos.decoding.opening import open_photo, sniff_format
from vladmap.photos.headers.exif import read_orientation


@dataclass(frozen=True)
class Encoded:
    """A JPEG file whose header has been checked: `size` (width, height) as stored, in pixels.

    `orientation` is EXIF's, 1 to 8; `max_pixels` holds where the CPU has to decode it after all.
    `data` as an array may lie in memory that is used again once whoever read it has it back.
    """

    data: bytes | NDArray[np.uint8]
    size: tuple[int, int]
    orientation: int
    max_pixels: int

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) once the orientation is applied."""
        return self.size[::-1] if self.orientation >= 5 else self.size

    def owned(self) -> Encoded:
        """The same with `data` in an array that is nobody else's."""
        if isinstance(self.data, np.ndarray) and self.data.flags.owndata:
            return self
        # Not bytes(): numpy copies without the interpreter's lock.
        return replace(self, data=np.array(np.frombuffer(self.data, np.uint8)))


def encoded(data: bytes, max_pixels: int) -> Encoded | None:
    """A JPEG of grey or colour whose header has been checked; None for any other photograph.

    Raises what `photos.decoding.opening.open_photo` raises. That the rest of it decodes was proved
    when it was ingested.
    """
    if sniff_format(data) != "JPEG" or bounds.decodes_apart("JPEG", data):
        return None
    image = open_photo(data, max_pixels=max_pixels)
    if image.mode not in ("L", "RGB"):
        return None
    return Encoded(data, image.size, read_orientation(image), max_pixels)
