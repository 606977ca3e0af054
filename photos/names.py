"""Names of the photographs' layouts that a command line shows. It imports nothing that is slow."""

from __future__ import annotations

LAYOUTS = ("utm", "msls", "csv", "frames", "atlas")
