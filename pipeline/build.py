"""Running stages in order: damage found on the way is repaired, the manifest is kept up to date."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
from collections.abc import Sequence
from typing import Any

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_entry
from vladmap.atlas.store import AtlasStore
from vladmap.pipeline.ledgers import require
from vladmap.pipeline.manifest import record
from vladmap.pipeline.option_values import from_manifest, given
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.run import RATE_OPTIONS, Run
from vladmap.pipeline.stages import STAGES
from vladmap.schemas import VERSION
from vladmap.schemas.records import NO_CELL, Task
from vladmap.schemas.rejects import UserError

log = logging.getLogger("vladmap")

_OPTIONS = "options"
_RETRIES = 3
"""The number of times that a run starts again after it has found damaged files."""


def run_stages(
    atlas: AtlasStore, options: BuildOptions, beam_args: Sequence[str], names: Sequence[str]
) -> Run:
    """Bring the named stages of an atlas up to date, in order.

    Raises UserError for what the user can mend, another run on the same atlas among it.
    """
    started = time.monotonic()
    run = Run(atlas, options, beam_args)
    with atlas.locked():
        atlas.check_all()
        if set(names) == set(STAGES):
            _keep_options(atlas, options)
        for again in range(_RETRIES, -1, -1):
            atlas.require(_ledgers_before(run, names))
            try:
                for number, name in enumerate(names, start=1):
                    run.stage = (number, len(names))
                    read = [option for option in RATE_OPTIONS if option in STAGES[name].options]
                    run.rate_options = {option: getattr(options, option) for option in read}
                    if len(names) > 1:
                        log.info("stage %d of %d: %s", number, len(names), name)
                    require(run, name)
                    STAGES[name].work(run)
                    record(run, name)
                    atlas.fold(step.ledger_name(options) for step in STAGES[name].steps)
                break
            except UserError:
                raise
            except Exception:
                # A damaged file may make a stage fail in any way; the digests tell whether there is
                # one.
                if not again or not atlas.doubt():
                    raise
                log.warning("what is damaged is made anew: starting again")
        atlas.tidy()
    if not any(result.elements for result in run.results):
        log.info("nothing to do: the atlas is up to date (%.1f s)", time.monotonic() - started)
    return run


def outcome(run: Run) -> dict[str, Any]:
    """What a run did and what its atlas now holds, for `--json`."""
    return {
        "vladmap": VERSION,
        "atlas": run.atlas.root,
        "stages": [dataclasses.asdict(result) for result in run.results],
        "counts": run.atlas.manifest.get("counts", {}),
        "bounds": run.atlas.manifest.get("bounds"),
    }


def absolute(options: BuildOptions) -> BuildOptions:
    """The options with local paths made absolute, as an atlas stores them."""
    paths: dict[str, Any] = {
        name: os.path.abspath(value) if value and storage.is_local(value) else value
        for name, value in (("images", options.images), ("checkpoint", options.checkpoint))
    }
    return dataclasses.replace(options, **paths)


def _keep_options(atlas: AtlasStore, options: BuildOptions) -> None:
    """Keep what a build was asked for, so that it can be done again."""
    options = absolute(options)
    data = (json.dumps(given(options), indent=1, sort_keys=True) + "\n").encode()
    known = atlas.ledger(_OPTIONS).get("all")
    if known is None or known.file.digest != storage.digest(data):
        file = storage.commit_file(atlas.root, layout.OPTIONS, data, 1)
        task = Task("all", NO_CELL, file.path, "")
        atlas.ledger(_OPTIONS)["all"] = commit_entry(atlas.root, _OPTIONS, task, [file])


def kept_options(atlas: AtlasStore) -> BuildOptions | None:
    """The options of the last whole build, None where an atlas does not know them.

    Raises UserError for a bad value of an option: an atlas may come from someone else.
    """
    known = atlas.ledger(_OPTIONS).get("all")
    if known is None:
        return None
    path = atlas.path(known.file.path)
    try:
        values = json.loads(storage.read_whole(path, known.file.digest))
    except (OSError, ValueError):
        return None
    return from_manifest(path, values)


def _ledgers_before(run: Run, names: Sequence[str]) -> list[str]:
    """The ledgers of the stages whose results these stages read and do not make."""
    order = list(STAGES)
    before = order[: min(order.index(name) for name in names)]
    return [ledger for name in before for ledger in STAGES[name].ledger_names(run.options)]
