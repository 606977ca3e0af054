"""The main job: every stage in order, the manifest kept, a summary at the end."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_entry
from vladmap.atlas.store import AtlasStore
from vladmap.models.registry import patch_dimension
from vladmap.pipeline import mapping_stages, report_stage, stages
from vladmap.pipeline.collection import list_collection
from vladmap.pipeline.options import BuildOptions, given, kept
from vladmap.pipeline.planning import plan
from vladmap.pipeline.run import Run
from vladmap.retrieval.names import BY_PATCHES
from vladmap.retrieval.patches import bytes_an_image
from vladmap.schemas import VERSION
from vladmap.schemas.records import NO_CELL, Task
from vladmap.schemas.rejects import UserError

log = logging.getLogger("vladmap")

_OPTIONS = "options"
_RETRIES = 3
"""Times that a run starts again when it has come upon damage."""

STAGES: dict[str, Callable[[Run], None]] = {
    "ingest": stages.ingest,
    "describe": stages.describe,
    "index": stages.index,
    "pair": stages.pair,
    "verify": stages.verify,
    "reconstruct": mapping_stages.reconstruct,
    "merge": mapping_stages.merge,
    "report": report_stage.report,
}


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
                    if len(names) > 1:
                        log.info("stage %d of %d: %s", number, len(names), name)
                    stages.require(run, name)
                    STAGES[name](run)
                    record(run, name)
                break
            except UserError:
                raise
            except Exception:
                # Whatever a stage stumbled on: damage shows in the digests.
                if not again or not atlas.doubt():
                    raise
                log.warning("what is damaged is made anew: starting again")
        atlas.tidy()
    if not any(result.elements for result in run.results):
        log.info("nothing to do: the atlas is up to date (%.1f s)", time.monotonic() - started)
    return run


def outcome(run: Run) -> dict[str, Any]:
    """What a run did and what its atlas holds now, for scripts: `--json`."""
    return {
        "vladmap": VERSION,
        "atlas": run.atlas.root,
        "stages": [dataclasses.asdict(result) for result in run.results],
        "counts": run.atlas.manifest.get("counts", {}),
        "bounds": run.atlas.manifest.get("bounds"),
    }


def _keep_options(atlas: AtlasStore, options: BuildOptions) -> None:
    """Keep what a build was asked for, so that it can be done again."""
    paths: dict[str, Any] = {
        name: os.path.abspath(value) if value and storage.is_local(value) else value
        for name, value in (("images", options.images), ("checkpoint", options.checkpoint))
    }
    options = dataclasses.replace(options, **paths)
    data = (json.dumps(given(options), indent=1, sort_keys=True) + "\n").encode()
    known = atlas.ledger(_OPTIONS).get("all")
    if known is None or known.file.digest != storage.digest(data):
        file = storage.commit_file(atlas.root, f"work/{_OPTIONS}.json", data, 1)
        task = Task("all", NO_CELL, file.path, "")
        atlas.ledger(_OPTIONS)["all"] = commit_entry(atlas.root, _OPTIONS, task, [file])


def kept_options(atlas: AtlasStore) -> BuildOptions | None:
    """The options of the last whole build, None where an atlas does not know them.

    Raises UserError for what is no option's value: the atlas may be anybody's.
    """
    known = atlas.ledger(_OPTIONS).get("all")
    if known is None:
        return None
    path = atlas.path(known.file.path)
    try:
        said = json.loads(storage.read_whole(path, known.file.digest))
    except (OSError, ValueError):
        return None
    return kept(path, said)


def _ledgers_before(run: Run, names: Sequence[str]) -> list[str]:
    """Stages, as the ledger names them, whose results these jobs read and do not make."""
    before = list(STAGES)[: min(list(STAGES).index(name) for name in names)]
    return [ledger for name in before for ledger in stages.ledger_names(run, name)]


def record(run: Run, stage: str) -> None:
    """Enter a stage that ended in the manifest, with the identity of all that it committed."""
    run.atlas.manifest["stages"][stage] = stages.identity(run, stage)
    run.atlas.manifest |= report_stage.manifest_facts(run)
    run.atlas.save()


def describe_work(options: BuildOptions, names: Sequence[str]) -> str:
    """What a run would do, in words: `--dry-run`. Writes nothing."""
    atlas = (
        AtlasStore.open(options.atlas, create=True, write=False)
        if "ingest" in names
        else AtlasStore.open(options.atlas, create=False)
    )
    run = Run(atlas, options)
    lines = []
    if "ingest" in names:
        listing = list_collection(options.images)
        planned = plan(atlas, listing, options.shard_images, write=False)
        total = listing.table.num_rows
        lines.append(f"collection  {listing.root}: {total} images, {human_bytes(listing.bytes)}")
        lines += [f"note        {note}" for note in listing.notes]
        lines.append(
            f"to read     {planned.fresh} images new or changed, {total - planned.fresh} known"
        )
        images = total
    else:
        images = sum(entry.counts["images"] for entry in stages.image_shards(run).values())
        lines.append(f"atlas       {atlas.root}: {images} images")
    if "describe" in names:
        done = sum(entry.file.rows for entry in atlas.ledger(stages.describe_name(run)).values())
        lines.append(
            f"describe    {max(images - done, 0)} images by {options.model} on {options.device}"
        )
        if options.rerank in BY_PATCHES:
            # Of a photograph in proportion 4:3 at 640 pixels; smaller inputs have fewer patches.
            patches = (30 - options.patch_size + 1) * (40 - options.patch_size + 1)
            brought = patch_dimension(options.model, options.checkpoint or None)
            each_image = bytes_an_image([patches], brought or options.patch_dimension, "int8")
            lines.append(
                f"patches     at most {each_image:,} bytes an image, "
                f"{human_bytes(images * each_image)} on disk"
            )
    if "pair" in names:
        each = options.near + options.everywhere + options.following
        lines.append(f"pair        at most {images * each} pairs ({each} an image)")
    if "verify" in names:
        # Measured: some 3,000 keypoints of 144 bytes an image, 4 kB a pair.
        size = images * 3000 * 144
        lines.append(f"verify      {options.features} features, about {human_bytes(size)} on disk")
    if "reconstruct" in names:
        tiles = max(1, -(-images // options.tile_images))
        lines.append(f"reconstruct at least {tiles} tiles of at most {options.tile_images} images")
    lines.append(f"stages      {', '.join(names)} -> {atlas.root}")
    lines.append("nothing was written: leave out --dry-run to begin")
    return "\n".join(lines)


def human_bytes(count: float) -> str:
    """A number of bytes as people read it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
