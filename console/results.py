"""What a job says to programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def print_json(content: Mapping[str, Any]) -> None:
    """One object on stdout, and nothing else there; NaN, which JSON has not, is an error."""
    print(json.dumps(content, indent=1, sort_keys=True, allow_nan=False))
