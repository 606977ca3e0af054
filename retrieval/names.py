"""Names and numbers of retrieval that a command line shows. It imports nothing that is slow."""

from __future__ import annotations

BY_PATCHES = ("rapid", "ransac")

SIGMA_M = 6.0
"""Standard deviation, in metres, of the smoothing of descriptors along a street.

Measured: recall is the same from 4 to 8.
"""

RIGHT_M = 25.0
RIGHT_DEG = 40.0
"""A match is right if it lies within RIGHT_M metres of the query and its heading differs by at most
RIGHT_DEG degrees."""
