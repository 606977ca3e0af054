"""The plan of tiles that an atlas keeps, so that a collection that grows keeps its tiles."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa

from vladmap.atlas import layout, storage
from vladmap.console.progress import counted
from vladmap.mapping.judged_pairs import JudgedPairs
from vladmap.mapping.tile_growth import TilePlan
from vladmap.mapping.tiles import Tile
from vladmap.pipeline.run import Run
from vladmap.schemas.rejects import DamagedFile

log = logging.getLogger("vladmap")

_PLAN = pa.schema(
    [
        pa.field("tile", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("core", pa.bool_(), nullable=False),
        pa.field("bound", pa.int64(), nullable=False),
    ]
)
"""Images of tiles; `bound` is the `--tile-images` that they were planned for."""


def plan_tiles_of(run: Run, judged: JudgedPairs) -> list[Tile]:
    """Plan the tiles of the trusted pairs, by the plan that the atlas keeps, and keep the new one.

    Another `--tile-images`, and a plan that is lost or damaged, have all tiles planned anew.
    """
    bound = run.options.tile_images
    plan = judged.tiles(bound, _kept(run, bound))
    _tell(plan)
    storage.commit_table(run.atlas.root, layout.TILE_PLAN, _table(plan.tiles, bound))
    return plan.tiles


def _table(tiles: list[Tile], bound: int) -> pa.Table:
    counts = [len(tile.image_ids) for tile in tiles]
    return pa.Table.from_arrays(
        [
            pa.array(np.repeat(np.array([tile.name for tile in tiles], object), counts)),
            pa.array([image for tile in tiles for image in tile.image_ids], pa.string()),
            pa.array([inside for tile in tiles for inside in tile.core.tolist()], pa.bool_()),
            pa.array(np.full(sum(counts), bound, np.int64)),
        ],
        schema=_PLAN,
    )


def _kept(run: Run, bound: int) -> list[Tile]:
    """The tiles of the plan before, if it was made for this bound."""
    path = run.atlas.path(layout.TILE_PLAN)
    try:
        table = storage.read_table(path, _PLAN.names).cast(_PLAN)
    except FileNotFoundError:
        return []
    except (OSError, DamagedFile, pa.ArrowInvalid) as error:
        log.warning("reconstruct: %s: %s; all tiles are planned anew", path, error)
        return []
    if table.num_rows == 0 or set(table["bound"].to_pylist()) != {bound}:
        return []
    ordered = table.sort_by([("tile", "ascending"), ("image_id", "ascending")])
    names, images, core = (
        np.array(ordered[name].to_pylist(), kind)
        for name, kind in (("tile", object), ("image_id", object), ("core", bool))
    )
    starts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]])).tolist()
    return [
        Tile(names[start], images[start:end].tolist(), core[start:end])
        for start, end in zip(starts, [*starts[1:], len(names)], strict=True)
    ]


def _tell(plan: TilePlan) -> None:
    """Say what became of the tiles that there were, where there were any."""
    if not plan.kept and not plan.grown and not plan.given_up:
        return
    for name, reason in sorted(plan.given_up.items()):
        log.info("reconstruct: tile %s is given up: %s", name, reason)
    log.info(
        "reconstruct: the plan of tiles keeps %s as they were, %d with other photographs, opens %d",
        counted(len(plan.kept), "tiles"),
        len(plan.grown),
        len(plan.opened),
    )
