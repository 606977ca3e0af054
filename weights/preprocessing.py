"""How a network wants its images: their size and the scale of their values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InputSize:
    """Which size a model wants its images at: the long side brought into a range, in pixels.

    Published and measured sizes differ from model to model, and bigger is not better for a global
    descriptor. The aspect ratio is kept to the rounding of the short side.
    """

    smallest: int
    largest: int

    def target(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels after resizing; a size returned once maps to itself."""
        long_side = max(width, height)
        wanted = min(max(long_side, self.smallest), self.largest)
        if wanted == long_side:
            return width, height
        short_side = max(1, round(min(width, height) * wanted / long_side))
        return (wanted, short_side) if width >= height else (short_side, wanted)


@dataclass(frozen=True)
class FixedSize:
    """The one size that a model takes, in pixels, whatever the aspect ratio of the image."""

    width: int
    height: int

    def target(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels after resizing."""
        return self.width, self.height


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its images: resized to `size`, then (rgb / 255 - mean) / std."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: InputSize | FixedSize
