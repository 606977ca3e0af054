"""Output of a command for other programs: JSON on stdout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def print_json(content: Mapping[str, Any]) -> None:
    """Print one JSON object; ValueError for NaN and infinity, which JSON cannot represent."""
    print(json.dumps(content, indent=1, sort_keys=True, allow_nan=False))
