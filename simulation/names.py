"""Names of the simulation that a command line shows. It imports nothing that is slow."""

from __future__ import annotations

CONDITIONS = (
    "day", "overcast", "dusk", "night", "rain", "fog", "snow", "winter", "autumn", "viewpoint",
)  # fmt: skip

ALIGNED = tuple(name for name in CONDITIONS if name != "viewpoint")
"""The conditions that leave the camera where it is."""

SPLITS = ("train", "val", "test")
