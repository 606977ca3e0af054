"""Names that the command line shows. This module imports nothing that is slow."""

from __future__ import annotations

CONDITIONS = (
    "day", "overcast", "dusk", "night", "rain", "fog", "snow", "winter", "autumn", "viewpoint",
)  # fmt: skip

ALIGNED = tuple(name for name in CONDITIONS if name != "viewpoint")
"""The conditions that leave the camera where it is."""

SPLITS = ("train", "val", "test")

MOST_SEED = 99_999
"""Of a world: farther on there is no room on the globe."""

CAMERAS = ("standard", "narrow", "wide", "fisheye")
"""The cameras of a street network's drives."""

GPS = ("good", "canyon", "none")
"""What receivers make of a street network."""

FAULTS = ("backwards", "clocks", "frozen", "twice", "borrowed")
"""What can be wrong with the drives of a street network."""
