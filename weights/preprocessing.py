"""How a network wants its images: their size and the scale of their values."""

from __future__ import annotations

from dataclasses import dataclass

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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

    def taken(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) that an image is resized to as 8-bit pixels: `target`."""
        return self.target(width, height)


@dataclass(frozen=True)
class FixedSize:
    """The one size that a model takes, in pixels, whatever the aspect ratio of the image."""

    width: int
    height: int

    def target(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels after resizing."""
        return self.width, self.height

    def taken(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) that an image is resized to as 8-bit pixels: `target`."""
        return self.target(width, height)


@dataclass(frozen=True)
class GivenSize:
    """A model that takes every image as it is: no 8-bit pixel of it is resampled.

    `longest` and `shortest` bound, in pixels, what a photograph is decoded to by those who decode
    for the model: its long side is brought down to `longest`, and then a side below `shortest` up
    to it, which changes the aspect ratio of a very long and narrow one.
    """

    shortest: int
    longest: int

    def target(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels to decode a photograph at; a size returned maps to itself."""
        scale = min(1.0, self.longest / max(width, height))
        return max(self.shortest, round(width * scale)), max(self.shortest, round(height * scale))

    def taken(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the image itself."""
        return width, height


Size = InputSize | FixedSize | GivenSize


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its images: resized to `size`, then (rgb / 255 - mean) / std.

    A network may resize the result once more itself: see `models.backbones.view`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: Size
