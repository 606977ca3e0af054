"""A photograph whose place is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vladmap.features.base import LocalFeatures
from vladmap.mapping.camera_keys import camera_key


@dataclass(frozen=True)
class Query:
    """What is known of a photograph whose place is asked for.

    `facts` has the columns of `images/` that its header
    gives. `descriptor` (D,) float32 is by the atlas's model; `features` are of the atlas's kind,
    None where it shows none. Pixels are of the full-size upright image.
    """

    facts: dict[str, Any]
    descriptor: NDArray[np.float32]
    features: LocalFeatures | None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return int(self.facts["width"]), int(self.facts["height"])

    @property
    def camera_key(self) -> str:
        """The key of its camera, as in `cameras` of an atlas."""
        return camera_key(
            self.facts.get("make"), self.facts.get("model"), *self.size, self.facts.get("focal_px")
        )

    @property
    def position(self) -> tuple[float, float] | None:
        """Latitude and longitude by its GPS."""
        latitude, longitude = self.facts.get("latitude"), self.facts.get("longitude")
        return None if latitude is None or longitude is None else (latitude, longitude)
