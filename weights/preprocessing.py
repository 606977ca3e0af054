"""What a network expects of its input images: their size and the scale of their values."""

from __future__ import annotations

from dataclasses import dataclass

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputSize:
    """Input images are resized so that the long side is from `smallest` to `largest` pixels.

    The best size differs from model to model; a global descriptor does not always gain from larger
    images. The aspect ratio is kept, up to the rounding of the short side.
    """

    smallest: int
    largest: int

    @property
    def most_pixels(self) -> int:
        """The most that an image decoded for the model has."""
        return self.largest**2

    def target(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels after resizing; a size that it returned maps to itself."""
        long_side = max(width, height)
        new_side = min(max(long_side, self.smallest), self.largest)
        if new_side == long_side:
            return width, height
        short_side = max(1, round(min(width, height) * new_side / long_side))
        return (new_side, short_side) if width >= height else (short_side, new_side)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) to which the model resizes 8-bit pixels: that of `target`."""
        return self.target(width, height)


@dataclass(frozen=True)
class FixedSize:
    """Input images are resized to one size in pixels, whatever their aspect ratio."""

    width: int
    height: int

    @property
    def most_pixels(self) -> int:
        """The most that an image decoded for the model has."""
        return self.width * self.height

    def target(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels after resizing."""
        return self.width, self.height

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) to which the model resizes 8-bit pixels: that of `target`."""
        return self.target(width, height)


@dataclass(frozen=True)
class GivenSize:
    """The model takes images of any size and does not resize their 8-bit pixels.

    Callers that decode a photograph for the model reduce its long side to `longest` pixels, and
    then enlarge a side below `shortest` to that, which changes the aspect ratio of very narrow
    photographs.
    """

    shortest: int
    longest: int

    @property
    def most_pixels(self) -> int:
        """The most that an image decoded for the model has."""
        return max(self.longest, self.shortest) ** 2

    def target(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels at which to decode a photograph; a size that it returned maps
        to itself."""
        scale = min(1.0, self.longest / max(width, height))
        return max(self.shortest, round(width * scale)), max(self.shortest, round(height * scale))

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the image itself: the model does not resize 8-bit pixels."""
        return width, height


Size = InputSize | FixedSize | GivenSize


@dataclass(frozen=True)
class Preprocessing:
    """Input images are resized to `size`, then normalised: (rgb / 255 - mean) / std.

    A network may resize the result once more: see `models.backbones.view`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: Size
