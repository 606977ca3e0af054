"""Identities of configurations: what a stage's results depend on beside its inputs."""

from __future__ import annotations

import json
from typing import Any

from vladmap.atlas import storage
from vladmap.schemas import SCHEMA_VERSION

# Raised when a stage's code begins to give other results for the same settings and inputs.
_STAGE_VERSIONS = {
    "plan": 1,
    "scan": 8,
    "ingest": 6,
    "vocabulary": 4,
    "describe": 3,
    "index": 1,
    "places": 1,
    "pair": 3,
    "features": 2,
    "verify": 2,
    "cameras": 4,
    "reconstruct": 7,
    "merge": 10,
}


def fingerprint(stage: str, **settings: Any) -> str:
    """BLAKE2b-128, in hex, of a stage's name, version, schema version and settings."""
    parts = [stage, str(_STAGE_VERSIONS[stage]), str(SCHEMA_VERSION)]
    return storage.combined_digest([*parts, json.dumps(settings, sort_keys=True)])
