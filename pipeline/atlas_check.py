"""The check and the repair that `vladmap check-atlas` makes."""

from __future__ import annotations

import dataclasses
import logging
import os
import shlex
import sys

import numpy as np
from tqdm import tqdm

from vladmap.atlas import layout, storage
from vladmap.atlas.integrity import Finding, behind, check_atlas, count_files, forget
from vladmap.atlas.store import AtlasStore
from vladmap.photos.ids import content_hash
from vladmap.pipeline.build import kept_options, run_stages
from vladmap.pipeline.option_values import as_words
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.stages import STAGES
from vladmap.schemas.rejects import UserError

log = logging.getLogger("vladmap")

_SHOWN = 50
_KNOWN = 50


def check(root: str) -> list[Finding]:
    """Check an atlas; print and return the findings."""
    level = log.level
    log.setLevel(logging.ERROR)  # each finding is printed once, below
    try:
        atlas = AtlasStore.open(root, create=False)
        findings = _findings(atlas)
    finally:
        log.setLevel(level)
    for path, why, *_ in findings[:_SHOWN]:
        print(f"{path}: {why}")
    if len(findings) > _SHOWN:
        print(f"and {len(findings) - _SHOWN} more")
    files = count_files(atlas)
    print(f"{files} files are as they were committed, {len(findings)} things are wrong", flush=True)
    if not findings and (lines := behind(atlas)):
        print(f"{lines} of them are behind what they were made from: run the build again")
    return findings


def _findings(atlas: AtlasStore) -> list[Finding]:
    manifest = Finding(atlas.path(layout.MANIFEST), atlas.restored, "manifest")
    damaged = [manifest] if atlas.restored else []
    with tqdm(
        total=count_files(atlas), desc="check", unit=" files", disable=not sys.stderr.isatty()
    ) as bar:
        return damaged + check_atlas(atlas, bar.update)


def repair(root: str, findings: list[Finding], images: str) -> None:
    """Delete what is damaged, and run again the build that made the atlas.

    Raises UserError, before anything is changed, if the options of that build are not known or its
    photographs are not there.
    """
    atlas = AtlasStore.open(root, create=False)
    known = kept_options(atlas)
    if known is None:
        raise UserError(
            f"--repair: {atlas.root} does not say with which options it was made: run the same "
            "`vladmap build` again, it makes anew what is damaged"
        )
    options = dataclasses.replace(known, atlas=atlas.root, images=images or known.images)
    if not images:
        _require_its_photographs(atlas, options)
    with atlas.locked():
        forget(atlas, findings)
    command = f"vladmap build --atlas {shlex.quote(atlas.root)} {as_words(options)}"
    print("".join(sign if sign.isprintable() else "?" for sign in command), flush=True)
    again = AtlasStore.open(atlas.root, create=True)
    again.doubted = True
    run_stages(again, options, (), list(STAGES))


def _require_its_photographs(atlas: AtlasStore, options: BuildOptions) -> None:
    """Raises UserError unless the collection holds, unchanged, a photograph that the atlas lists.

    An atlas may come from someone else, and it names the folder that a repair reads. Whoever wrote
    it must have seen the photographs in that folder: otherwise it is not read.
    """
    inside = options.images if os.path.isdir(options.images) else os.path.dirname(options.images)
    seen = 0
    for entry in atlas.image_shards().values():
        table = storage.read_table(atlas.path(entry.file.path), ["uri", "content_hash"])
        rows = np.linspace(0, table.num_rows - 1, min(_KNOWN, table.num_rows)).astype(int)
        for row in table.take(rows).to_pylist():
            if not row["uri"].startswith(inside.rstrip("/") + "/"):
                continue
            try:
                seen += content_hash(storage.read_bytes(row["uri"])) == row["content_hash"]
            except OSError:
                continue
        if seen:
            return
    raise UserError(
        f"--repair: none of the photographs of {atlas.root} is at {options.images} as it was: say "
        "with --images where they are"
    )
