"""Constants that the command line shows. This module imports nothing that is slow."""

from __future__ import annotations

LAYOUTS = ("utm", "msls", "csv", "frames", "atlas")

JPEG_QUALITY = 97
"""Quality of photographs that an export encodes again: high enough not to affect local features,
with files somewhat larger than the original."""
