"""A reconstruction of a tile, or of several: COLMAP's model with its place on earth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vladmap.features.colmap import pycolmap
from vladmap.mapping.arrays import Origin
from vladmap.mapping.placement import place
from vladmap.mapping.soundness import misplaced_images


@dataclass
class TileModel:
    """A reconstruction with its name and its frame.

    If `georegistered`, the model is in metres in the east-north-up frame at `origin`; otherwise it
    is in a frame of its own. `parts` counts the tiles' models that were joined in it, `dropped`
    gives the reason for each image name that was removed from it, `joining` figures of the join.
    """

    name: str
    model: pycolmap.Reconstruction
    origin: Origin
    georegistered: bool
    parts: int = 1
    dropped: dict[str, str] = field(default_factory=dict)
    joining: dict[str, int] = field(default_factory=dict)


def read_model(folder: Path, name: str, origin: Sequence[float], georegistered: bool) -> TileModel:
    """Read the model that COLMAP's binary files in a folder hold."""
    latitude, longitude, altitude = origin
    model = pycolmap.Reconstruction(str(folder))
    return TileModel(name, model, (latitude, longitude, altitude), georegistered)


def read_tile_models(folder: Path, reports: Mapping[str, Mapping[str, Any]]) -> list[TileModel]:
    """Read the models of tiles from `folder`/<tile>/sparse/<n>; `reports` are tile.json by tile."""
    return [
        read_model(
            folder / tile / "sparse" / str(int(model["model"])),
            f"{tile}/{model['model']}",
            model["origin"],
            model["georegistered"],
        )
        for tile, report in sorted(reports.items())
        for model in report.get("models", [])
    ]


def place_tile(
    tile: TileModel, by_name: Mapping[str, Mapping[str, Any]], gps_sigma_m: float
) -> dict[str, Any]:
    """Georegister a model, in place, about an origin amid its images; see placement.place."""
    figures = place(tile.model, by_name, gps_sigma_m)
    latitude, longitude, altitude = figures["origin"]
    tile.origin = latitude, longitude, altitude
    tile.georegistered = bool(figures["georegistered"])
    return figures


def names_of(tile: TileModel) -> set[str]:
    """Return the names of the registered images."""
    return {tile.model.image(number).name for number in tile.model.reg_image_ids()}


def misplaced_in(
    tile: TileModel, by_name: Mapping[str, Mapping[str, Any]], gps_sigma_m: float
) -> set[str]:
    """Return the images that GPS and sequences place elsewhere; none without georegistration."""
    if not tile.georegistered:
        return set()
    return set(misplaced_images(tile.model, by_name, tile.origin, gps_sigma_m))
