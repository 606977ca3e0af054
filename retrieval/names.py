"""Names and numbers of retrieval that a command line shows. It imports nothing that is slow."""

from __future__ import annotations

BY_PATCHES = ("rapid", "ransac")

SIGMA_M = 6.0
"""Metres over which a street looks alike. Measured: 4 to 8 are equally good."""

RIGHT_M = 25.0
RIGHT_DEG = 40.0
"""A match is right this near to the query, and if it looks the same way to so many degrees."""
