"""A tile that has grown: its model continued, and tested as one that is mapped from nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vladmap.features.colmap import pycolmap
from vladmap.mapping.continued import CannotContinue, Continued, continue_model
from vladmap.mapping.mapper import MapperOptions, image_names
from vladmap.mapping.sound_models import SoundModels, TileImages, sound_models
from vladmap.mapping.soundness import read_pairs
from vladmap.mapping.tile_mapping import ENOUGH_SOUND, largest_component, written_models

MOST_GROWN = 1.5
"""A tile that has so many times the images that it was mapped at once with is mapped from nothing:
each continuation adjusts a part alone, and what that leaves adds up."""


@dataclass(frozen=True)
class Before:
    """A tile as it was: its `report` (tile.json) and the `folder` of its one model.

    Where there is no folder to read, `reason` says why.
    """

    report: Mapping[str, Any]
    folder: Path | None
    reason: str = ""


def continue_tile(
    work: Path, rows: list[dict[str, Any]], before: Before, options: MapperOptions
) -> dict[str, Any]:
    """Continue a tile's model with the images and pairs of the database `work`/database.db.

    `rows` are as in `tile_mapping.map_tile`. Returns the report of the tile, and its model is
    written to `work`/models; or, where the model cannot be continued or what comes of it fails a
    test, `from_nothing` alone: the reason, in one line.
    """
    if before.folder is None:
        return {"from_nothing": before.reason}
    old = pycolmap.Reconstruction(str(before.folder))
    at_once = int(before.report.get("grown", {}).get("mapped_at_once", old.num_reg_images()))
    database = work / "database.db"
    long_side = max(max(row["width"], row["height"]) for row in rows)
    tile = TileImages({row["uri"]: row for row in rows}, long_side, options)
    try:
        grown = continue_model(old, database, long_side)
    except CannotContinue as error:
        return {"from_nothing": str(error)}
    if grown.model.num_reg_images() > MOST_GROWN * at_once:
        images = grown.model.num_reg_images()
        return {"from_nothing": f"of its {images} images {at_once} were mapped at once"}
    had = set(image_names(old)) & {image.name for image in grown.model.images.values()}
    sound = sound_models([grown.model], read_pairs(database), tile, calibrated=True)
    new = _new(grown, before.report, tile)
    reason = _refusal(sound, had, new, largest_component(database))
    if reason:
        return {"from_nothing": reason}
    return {
        "mapper": before.report.get("mapper", ""),
        "collapsing_pairs": 0,
        "out_of_time": [],
        "far_pairs_left_out": 0,
        **written_models(sound, work / "models"),
        "grown": {
            "new": len(new),
            "registered": len(set(grown.registered) & set(new)),
            "adjusted": grown.freed,
            "calibrated_cameras": grown.calibrated,
            "observations_without_pairs": grown.unjoined,
            "mapped_at_once": at_once,
        },
    }


def _new(grown: Continued, report: Mapping[str, Any], tile: TileImages) -> list[str]:
    """The candidates that the tile has not tried before."""
    tried = set(report.get("unregistered", {}))
    return [name for name in grown.candidates if tile.by_name[name]["image_id"] not in tried]


def _refusal(sound: SoundModels, had: set[str], new: list[str], connected: int) -> str:
    """Return why what was continued does not stand, in one line; nothing if it does.

    `had` are the images of the model before, `connected` how many images pairs connect.
    """
    if not sound.models:
        return "nothing of what was continued passes the tests"
    if len(sound.models) > 1:
        return f"what was continued falls into {len(sound.models)} models"
    held = set(image_names(sound.models[0][0]))
    if lost := had - held:
        return f"{len(lost)} of {len(had)} images that were in the map would leave it"
    if len(held & set(new)) < ENOUGH_SOUND * len(new):
        return f"only {len(held & set(new))} of {len(new)} new images could be registered"
    if len(held) < ENOUGH_SOUND * connected:
        return f"only {len(held)} of {connected} connected images are in the map"
    return ""
