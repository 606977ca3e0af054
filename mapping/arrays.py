"""Types of the arrays in this room."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Bools = NDArray[np.bool_]

Origin = tuple[float, float, float]
"""Where an east-north-up frame touches the earth: latitude, longitude (degrees), height (m)."""
