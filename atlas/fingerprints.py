"""Identities of configurations: what a stage's results depend on beside its inputs."""

from __future__ import annotations

import json
from typing import Any

from vladmap.atlas import storage
from vladmap.schemas import SCHEMA_VERSION


def fingerprint(name: str, version: int, **settings: Any) -> str:
    """BLAKE2b-128, in hex, of a step's name and version, the schema version and the settings."""
    parts = [name, str(version), str(SCHEMA_VERSION)]
    return storage.combined_digest([*parts, json.dumps(settings, sort_keys=True)])
