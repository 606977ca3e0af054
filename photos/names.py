"""Names and numbers of photographs that a command line shows. It imports nothing that is slow."""

from __future__ import annotations

LAYOUTS = ("utm", "msls", "csv", "frames", "atlas")

JPEG_QUALITY = 97
"""Of what an export writes anew: turned without a trace that features would see, at some more bytes
than the photograph had."""
