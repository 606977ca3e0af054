"""Judge the verified pairs, cut the trusted ones into tiles, and map what is new or changed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vladmap.pipeline.stage import Stage, Step

if TYPE_CHECKING:
    from vladmap.pipeline.run import Run

log = logging.getLogger("vladmap")

FIT = Step(
    "fit",
    version=5,
    label="judge pairs",
    unit="pairs",
    internal=True,
    alone=True,
    settings=lambda options: {"gps_sigma_m": options.gps_sigma_m},
    told=True,
    after=("organise", "features", "cameras", "verify"),
)
# Some rows on pairs: the driver writes them.
LOOPS = Step("loops", after=("organise", "judge pairs"))
RECONSTRUCT = Step(
    "reconstruct",
    version=10,
    unit="tiles",
    settings=lambda options: {
        "gps_sigma_m": options.gps_sigma_m,
        "tile_images": options.tile_images,  # in the fingerprint by the members of each tile
    },
    after=("judge pairs",),
)


def work(run: Run) -> None:
    """Judge the pairs, plan the tiles, and reconstruct those that are new or changed.

    All pairs are fitted to one pose graph of the whole collection first. The verdict on each pair
    is written to `work/judged.parquet` and `two_views/`, loops and drives to tables of their own.
    If there are no trusted pairs, or if all tiles fail, the map is empty.
    """
    from vladmap.pipeline.options import worker_threads
    from vladmap.pipeline.tile_plan import plan_tiles_of
    from vladmap.pipeline.tiles import fit_pairs, judge_pairs, made_as, tile_task
    from vladmap.transforms.reconstruct import ReconstructTiles, map_memory

    options = run.options
    fit_pairs(run)
    judged = judge_pairs(run)
    tiles = plan_tiles_of(run, judged)
    if not tiles:
        # Not an error: descriptors, index and pairs are usable, and the report gives the reason for
        # each photograph.
        log.warning(
            "reconstruct: no two photographs see the same scene, so there is nothing to map; "
            "photographs further apart than they can see make no map"
        )
    _forget_given_up(run, int(60 * options.tile_minutes))
    run.execute(
        RECONSTRUCT,
        [tile_task(run, judged, tile) for tile in tiles],
        ReconstructTiles(
            run.atlas.root,
            60 * options.tile_minutes,
            options.gps_sigma_m,
            worker_threads(options, run.in_process),
            made_as(run),
        ),
        memory=map_memory(max([options.tile_images, *(len(tile.image_ids) for tile in tiles)])),
    )


def _forget_given_up(run: Run, limit_s: int) -> None:
    """Remove failed tiles from the ledger if the time limit has changed: they are tried again.

    Tiles that ran out of memory are always tried again: there may be more memory now.
    """
    for name, entry in sorted(run.ledger(RECONSTRUCT).items()):
        other_limit = entry.counts.get("limit_s", limit_s) != limit_s
        if entry.counts.get("failed") and (other_limit or entry.counts.get("out_of_memory")):
            run.atlas.forget(RECONSTRUCT.ledger_name(run.options), [name])


def estimate(run: Run, images: int) -> list[str]:
    """About how many tiles there are, and their images with overlaps."""
    from vladmap.mapping.tiles import expected_tiles

    tiles, each = expected_tiles(images, run.options.tile_images)
    return [f"reconstruct about {tiles} tiles of {each} images, overlaps counted"]


STAGE = Stage(
    name="reconstruct",
    title="map each tile with COLMAP",
    text="Map every tile with COLMAP and place it by GPS: tiles/.",
    work=work,
    estimate=estimate,
    steps=(FIT, LOOPS, RECONSTRUCT),
    needs=("ingest", "verify"),
    options=("threads", "gps_sigma_m", "features", "tile_images", "tile_minutes"),
    group="maps (reconstruct, merge)",
    examples=("vladmap reconstruct --atlas atlas --tile-images 300",),
    # Without verified pairs there are no tiles, and the map is empty.
    may_be_empty=True,
)
