"""Builds of a small atlas that is damaged on purpose."""

from __future__ import annotations

import os
from pathlib import Path

from tests.pipeline.test_stages import files
from vladmap.atlas.store import AtlasStore
from vladmap.pipeline.build import run_stages
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.run import Run

UP_TO_PAIRS = ("ingest", "describe", "index", "pair")


def options(photos: Path, atlas: Path) -> BuildOptions:
    return BuildOptions(images=str(photos), atlas=str(atlas), shard_images=8, clusters=8)


def build_again(photos: Path, atlas: Path) -> Run:
    return run_stages(
        AtlasStore.open(str(atlas), create=True), options(photos, atlas), (), UP_TO_PAIRS
    )


def data_files(atlas: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(atlas).items() if not name.startswith(".lock")}


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1
    path.write_bytes(data)


def unnoticed(atlas: Path, path: Path) -> None:
    """See to it that no time tells that a file changed, as where a disk rots."""
    for line in (atlas / "ledger").rglob("*.json"):
        if path.relative_to(atlas).as_posix() in line.read_text():
            os.utime(line)
