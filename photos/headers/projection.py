"""The projection of a photograph: the picture of one lens, or a panorama.

No focal length fits a panorama, and a map made with one is wrong without any error. The metadata
decide. Where they say nothing, a wide picture is tested: whether its left and right edges fit
together, and whether its first or last row shows a single point, a pole.
"""

from __future__ import annotations

import re

import numpy as np

PERSPECTIVE = "perspective"
"""One lens's picture, fisheye lenses among them: what mapping finds a camera model for."""

EQUIRECTANGULAR = "equirectangular"
"""A sphere by longitude and latitude, or a part of one."""

CYLINDRICAL = "cylindrical"
"""A turn or a sweep of the camera, stitched onto a cylinder."""

UNKNOWN = "unknown"
"""No single lens's picture, and nothing says what else."""

PROJECTIONS = (PERSPECTIVE, EQUIRECTANGULAR, CYLINDRICAL, UNKNOWN)

_STATED = {
    "equirectangular": EQUIRECTANGULAR,
    "spherical": EQUIRECTANGULAR,
    "cylindrical": CYLINDRICAL,
    "perspective": PERSPECTIVE,
    "rectilinear": PERSPECTIVE,
    "planar": PERSPECTIVE,
    "fisheye": PERSPECTIVE,
    "full frame fisheye": PERSPECTIVE,
}

# Cameras with lenses on all sides. Their pictures of the shape 2:1 are whole spheres, or two
# fisheye circles beside each other before stitching.
_ALL_ROUND = re.compile(
    r"\b(theta|ricoh360|insta\s?360|gopro (max|fusion)|osmo 360|gear 360|sm-c200|sm-r210"
    r"|virb 360|lg[- ]?r105|360 ?cam|mi sphere|qjtp01|pixpro .*360|sp360|4kvr360|keymission 360"
    r"|yi 360|madv\s?360|madventure 360|360fly|qoocam|kandao|vuze|panono|ladybug\s?\d*"
    r"|pilot (one|era)|labpano|trisio|nctech|istar|mosaic (51|meridian|viking|x))\b",
    re.IGNORECASE,
)

# In a closed panorama the left and right edges are neighbours. So their difference is at most this
# multiple of the median difference of neighbouring columns, and this share of that of columns a
# third of the width apart; and the vertical changes along the two are correlated.
_SEAM_TO_NEIGHBOURS = 2.0
_SEAM_TO_FAR = 0.25
_SEAM_CORRELATION = 0.4
# The least correlation where there is no pole as further evidence.
_SEAM_CORRELATION_ALONE = 0.7
# Grey levels: a side without any change (a black frame beside the picture) is no evidence.
_MIN_SIDE_CHANGE = 4.0
# A pole is one point: the largest standard deviation of its row, relative to the median row.
_POLE_TO_ROWS = 0.25
# Pixels: the edges of a narrower picture agree by chance too often.
_MIN_WIDTH = 256
_TWO_TO_ONE = 0.01
# Grey levels: what a codec's noise leaves of the black around a fisheye's circle.
_BLANK = 8.0


def stated(value: str | None) -> str | None:
    """The projection that a written name means; None where none is written.

    Names of other projections (a cube, two fisheyes, a little planet) are UNKNOWN.
    """
    name = (value or "").strip().lower()
    return _STATED.get(name, UNKNOWN) if name else None


def by_camera(width: int, height: int, make: str | None, model: str | None) -> str | None:
    """EQUIRECTANGULAR for a picture of the shape 2:1 by an all-round camera, else None."""
    name = f"{make or ''} {model or ''}"
    if two_to_one(width, height) and _ALL_ROUND.search(name):
        return EQUIRECTANGULAR
    return None


def two_to_one(width: int, height: int) -> bool:
    """Whether a picture is twice as wide as high, but for rounding."""
    return abs(width - 2 * height) <= max(2, _TWO_TO_ONE * height)


def by_pixels(grey: np.ndarray) -> str | None:
    """What the pixels of a wide picture, (H, W) uint8 and upright, prove; None where nothing.

    EQUIRECTANGULAR: of the shape 2:1, closing around the horizon, and a pole in its first or last
    row. UNKNOWN: wider than high by more than that and closing: a whole turn, on a cylinder or a
    part of a sphere. A plain photograph of the same shape does neither. The picture may be reduced:
    from 256 pixels of width on it tells as much as the whole.
    """
    height, width = grey.shape
    shaped = two_to_one(width, height)
    if width < _MIN_WIDTH or (not shaped and width < 2 * height):
        return None
    if not shaped:
        return UNKNOWN if _closes(grey, _SEAM_CORRELATION_ALONE) else None
    if not _closes(grey, _SEAM_CORRELATION):
        return None
    change = grey.std(axis=1, dtype=np.float64)
    poles = min(change[0], change[-1])
    return EQUIRECTANGULAR if poles <= _POLE_TO_ROWS * float(np.median(change)) else None


def two_circles(grey: np.ndarray) -> bool:
    """Whether an (H, 2 H) uint8 picture shows two fisheye circles and nothing around them."""
    height, width = grey.shape
    y, x = np.mgrid[:height, :width]
    side = width / 2
    radius = np.hypot((x + 0.5) % side - side / 2, (y + 0.5) - height / 2)
    outside = grey[radius > 0.55 * side].astype(np.float64)
    inside = grey[radius < 0.45 * side].astype(np.float64)
    return bool(outside.size and outside.std() < min(_BLANK, 0.5 * float(inside.std())))


def _closes(grey: np.ndarray, least_correlation: float) -> bool:
    values = grey.astype(np.float64)
    first, last = values[:, 0], values[:, -1]
    if min(first.std(), last.std()) < _MIN_SIDE_CHANGE:
        return False
    steps = np.diff(np.stack([first, last]), axis=1)
    spread = np.sqrt((steps**2).sum(axis=1))
    correlation = float((steps[0] @ steps[1]) / max(float(spread.prod()), 1e-9))
    seam = float(np.abs(first - last).mean())
    neighbours = float(np.median(np.abs(np.diff(values, axis=1)).mean(axis=0)))
    far = float(np.abs(values - np.roll(values, values.shape[1] // 3, axis=1)).mean())
    return (
        correlation >= least_correlation
        and seam <= _SEAM_TO_NEIGHBOURS * max(neighbours, 0.5)
        and seam <= _SEAM_TO_FAR * far
    )
