"""Names and numbers of an atlas that a command line shows. It imports nothing that is slow."""

from __future__ import annotations

TRUTH = "report/truth.json"
"""Where an atlas keeps its comparison with the truth."""
