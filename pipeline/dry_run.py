"""What a run would do, in words: `--dry-run`."""

from __future__ import annotations

from collections.abc import Sequence

from vladmap.atlas.store import AtlasStore
from vladmap.console.numbers import human_bytes
from vladmap.pipeline.collection import list_collection
from vladmap.pipeline.ledgers import image_shards
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.planning import plan
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import STAGES


def describe_work(options: BuildOptions, names: Sequence[str]) -> str:
    """Lines on the photographs, then those of each stage's own estimate. Writes nothing."""
    stages = [STAGES[name] for name in names]
    reads_collection = any(not stage.needs for stage in stages)
    atlas = AtlasStore.open(options.atlas, create=reads_collection, write=False)
    run = Run(atlas, options)
    if reads_collection:
        listing = list_collection(options.images)
        planned = plan(atlas, listing, options.shard_images, write=False)
        images = listing.table.num_rows
        lines = [
            f"collection  {listing.root}: {images} images, {human_bytes(listing.bytes)}",
            *(f"note        {note}" for note in listing.notes),
            f"to read     {planned.fresh} images new or changed, {images - planned.fresh} known",
        ]
    else:
        images = sum(entry.counts["images"] for entry in image_shards(run).values())
        lines = [f"atlas       {atlas.root}: {images} images"]
    for stage in stages:
        if stage.estimate is not None:
            lines += stage.estimate(run, images)
    lines.append(f"stages      {', '.join(names)} -> {atlas.root}")
    lines.append("nothing was written: leave out --dry-run to begin")
    return "\n".join(lines)
