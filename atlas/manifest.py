"""The manifest of an atlas, `atlas.json`: reading it, and making it anew from the ledger."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from typing import Any

from vladmap.atlas import layout, storage
from vladmap.atlas.ledger import LedgerReader
from vladmap.schemas import SCHEMA_VERSION
from vladmap.schemas.records import unsealed
from vladmap.schemas.rejects import UserError

_PACKAGES = (
    *("apache-beam", "torch", "faiss-cpu", "faiss-gpu-cuvs", "pyarrow", "pycolmap", "numpy"),
)


def read_manifest(root: str) -> dict[str, Any]:
    """The manifest of the atlas at `root`.

    Raises UserError for one that a newer vladmap wrote, OSError where it cannot be read, ValueError
    where it is damaged.
    """
    data = storage.read_bytes(storage.join(root, layout.MANIFEST))
    version = schema_version(data)
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{root} has schema version {version}, this vladmap knows {SCHEMA_VERSION}: "
            "use a newer vladmap, or build into another folder"
        )
    manifest = unsealed(data)
    _check_types(manifest)
    return manifest


def restored_manifest(root: str, ledger: LedgerReader) -> dict[str, Any]:
    """What the ledger tells of a manifest that is lost; the next build completes it."""
    stages = ledger.stages()
    choices = {}
    for option, prefix in (("model", "describe-"), ("features", "features-")):
        names = [stage.removeprefix(prefix) for stage in stages if stage.startswith(prefix)]
        if len(names) == 1:
            choices[option] = names[0]
    manifest: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "stages": {}, "report": choices}
    for entry in ledger.entries("plan").values():
        first = storage.read_table(storage.join(root, entry.file.path)).slice(0, 1).to_pylist()
        for row in first:
            if str(row["uri"]).endswith(f"/{row['path']}"):
                manifest["collection"] = row["uri"].removesuffix(f"/{row['path']}")
    return manifest


def schema_version(data: bytes) -> int:
    """The version that a manifest states, 0 where that cannot be read."""
    try:
        return int(json.loads(data)["schema_version"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0


def _check_types(manifest: Mapping[str, Any]) -> None:
    """Raises ValueError for values of other types than a store writes."""
    kinds = {"schema_version": int, "stages": dict, "collection": str, "report": dict}
    for key, kind in kinds.items():
        if key in manifest and not isinstance(manifest[key], kind):
            raise ValueError(f"{key} is of another type")
    if not all(isinstance(value, str) for value in manifest.get("stages", {"": None}).values()):
        raise ValueError("stages are of another type")


def software_versions() -> dict[str, str]:
    """Versions of what made an atlas."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
