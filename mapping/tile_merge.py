"""Merging: the models of tiles that agree become one, aligned and adjusted together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vladmap.features.colmap import pycolmap
from vladmap.mapping import reasons as why
from vladmap.mapping.evidence import keep_evident
from vladmap.mapping.georegister import centres_and_rotations
from vladmap.mapping.gps import DEFAULT_ACCURACY_M
from vladmap.mapping.gps_fit import GpsFit, fit_to_gps
from vladmap.mapping.mapper import MapperOptions
from vladmap.mapping.placement import place
from vladmap.mapping.seams import Seams, adjust_seams, find_seams, remove_misfits
from vladmap.mapping.skeleton import unbent
from vladmap.mapping.soundness import contradicted, misplaced_images, remove_images
from vladmap.mapping.tile_agreement import Part, compare_all
from vladmap.mapping.tile_alignment import UNKNOWNS
from vladmap.mapping.tile_arrays import tile_arrays
from vladmap.mapping.tile_groups import Group, consistent_groups
from vladmap.mapping.tile_model import TileModel, misplaced_in, names_of, place_tile
from vladmap.mapping.track_join import build_model, join_tracks

IMAGE_COLUMNS = [
    "image_id", "name", "uri", "content_hash", "latitude", "longitude", "altitude",
    "gps_accuracy_m", "heading_deg", "sequence_id", "sequence_index",
]  # fmt: skip
"""Columns of IMAGES that merging, colouring and the poses need."""

# Removing images moves the others a little, so the rest is tested again, at most so many times.
_ROUNDS = 3


@dataclass(frozen=True)
class Merged:
    """The result of a merge.

    `models` are in order of decreasing size, `reports` their figures, `decisions` one JSON object
    for each two tiles' models that share images. `unregistered` gives the reason for each image
    name that is in a tile's model and in none of these; `left_out` lists the models that GPS
    contradicts.
    """

    models: list[TileModel]
    reports: list[dict[str, Any]]
    decisions: list[dict[str, Any]]
    unregistered: dict[str, str]
    left_out: list[dict[str, Any]]

    def report(
        self,
        reasons: Mapping[str, str],
        colours: Mapping[str, Any],
        quality: Sequence[Mapping[str, Any]],
        tiles: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return merge.json.

        `reasons` are `unregistered` by image_id, `colours` of the points; `quality` has figures of
        each model, and `tiles` of each tile by its name.
        """
        return {
            "models": [{**one, **more} for one, more in zip(self.reports, quality, strict=True)],
            "tiles": dict(tiles),
            "decisions": self.decisions,
            "unregistered": reasons,
            "colours": colours,
            "models_left_out": self.left_out,
        }


def merge_tiles(
    tiles: Sequence[TileModel],
    by_name: Mapping[str, Mapping[str, Any]],
    gps_sigma_m: float = DEFAULT_ACCURACY_M,
    min_model_size: int = MapperOptions.min_model_size,
) -> Merged:
    """Join models that share images and agree: one alignment and one adjustment for each group.

    `by_name` gives each COLMAP image name its row of IMAGES. Two models agree if their common
    images do in position and direction, and if GPS and sequences do not contradict the two
    together; a group of them, if that still holds when all are aligned. Each refusal is reported
    with its figures. A group is adjusted as a whole by a sample of its points, then along its seams
    by all, and georegistered about an origin of its own. Images without evidence in the result are
    removed. Time and memory grow linearly with the images.
    """
    joined, decisions = _joined(tiles, by_name, gps_sigma_m)
    holds = [(tile, _test(tile, by_name, gps_sigma_m)) for tile in joined]
    left_out = [
        {"name": tile.name, "images": len(tile.dropped), "reason": max(tile.dropped.values())}
        for tile, sound in holds
        if not sound
    ]
    distinct = _without_subsets([tile for tile, sound in holds if sound])
    models, dropped = _evident(distinct, by_name, gps_sigma_m, min_model_size)
    for tile in joined:
        dropped |= tile.dropped
    registered = {name for tile in models for name in names_of(tile)}
    unregistered = {name: dropped[name] for name in sorted(set(dropped) - registered)}
    models.sort(key=_largest_first)
    reports = [_report(tile, by_name, gps_sigma_m) for tile in models]
    return Merged(models, reports, decisions, unregistered, left_out)


def _joined(
    tiles: Sequence[TileModel], by_name: Mapping[str, Mapping[str, Any]], gps_sigma_m: float
) -> tuple[list[TileModel], list[dict[str, Any]]]:
    """Return a model for each group of tiles that agree, and the decisions on all two of them."""
    tiles = sorted(tiles, key=_largest_first)
    if len(tiles) < 2:
        return tiles, []
    names = sorted({name for tile in tiles for name in names_of(tile)})
    number_of = {name: number for number, name in enumerate(names)}
    parts = []
    for tile in tiles:
        held, centres, rotations = centres_and_rotations(tile.model)
        gps = GpsFit()
        if tile.georegistered:
            gps = fit_to_gps(held, centres, rotations, by_name, gps_sigma_m)
        parts.append(Part(tile, tile_arrays(tile.model, number_of), gps))
    agreements = compare_all(parts, names, by_name, gps_sigma_m)
    groups = consistent_groups(parts, agreements, names, by_name, gps_sigma_m)
    joined = [
        _join([parts[member] for member in group.members], group, names, by_name, gps_sigma_m)
        for group in groups
    ]
    return joined, [each.decision for each in agreements]


def _join(
    parts: Sequence[Part],
    group: Group,
    names: Sequence[str],
    by_name: Mapping[str, Mapping[str, Any]],
    gps_sigma_m: float,
) -> TileModel:
    """Return the model of a group, adjusted along its seams; that of a single tile as it is."""
    base = parts[0].tile
    if len(parts) == 1:
        return base
    poses = group.poses
    tracks = join_tracks([part.arrays for part in parts], group.similarities, poses.accepted)
    models = [part.tile.model for part in parts]
    poses, tracks = unbent(models, poses, names, tracks)
    model, kept = build_model(models, poses, names, tracks)
    joined = TileModel(base.name, model, group.origin, group.georegistered, len(parts))
    for part in parts:
        joined.dropped |= part.tile.dropped
    joined.dropped |= dict.fromkeys([names[number] for number in poses.torn.tolist()], why.TORN)
    ids = 1 + np.searchsorted(poses.image, kept.image)
    seams = find_seams(1 + np.flatnonzero(poses.tiles > 1), ids, kept)
    place_tile(joined, by_name, gps_sigma_m)
    _adjust(joined, seams, by_name, gps_sigma_m)
    removed = len(tracks.image) - len(kept.image) + remove_misfits(joined.model, ids, kept)
    joined.joining = {
        "tiles": len(parts),
        "alignment_unknowns": UNKNOWNS * len(parts),
        "joined_points": int(tracks.joined.sum()),
        "conflicting_points": tracks.conflicts,
        "observations_removed": removed,
        **seams.figures(),
    }
    return joined


def _largest_first(tile: TileModel) -> tuple[int, str]:
    return -tile.model.num_reg_images(), tile.name


def _evident(
    tiles: Sequence[TileModel],
    by_name: Mapping[str, Mapping[str, Any]],
    gps_sigma_m: float,
    min_model_size: int,
) -> tuple[list[TileModel], dict[str, str]]:
    """Return the models without the images that have no evidence, and the reasons by image name."""
    evident: list[TileModel] = []
    dropped: dict[str, str] = {}
    for tile in tiles:
        images = tile.model.num_reg_images()
        result = keep_evident([tile.model], min_model_size)
        dropped |= result.dropped
        for number, model in enumerate(result.models):
            name = f"{tile.name}-{number}" if number else tile.name
            part = replace(tile, name=name, model=model, dropped={})
            if model.num_reg_images() < images:
                place_tile(part, by_name, gps_sigma_m)
            evident.append(part)
    return evident, dropped


def _test(tile: TileModel, by_name: Mapping[str, Mapping[str, Any]], gps_sigma_m: float) -> bool:
    """Remove from a model, in place, the images that GPS and sequences contradict.

    Returns False for a model that is contradicted as a whole.
    """
    if not tile.georegistered:
        return True
    whole = tile.model.num_reg_images()
    removed: dict[str, str] = {}
    for _ in range(_ROUNDS):
        wrong = misplaced_images(tile.model, by_name, tile.origin, gps_sigma_m)
        removed |= dict.fromkeys(wrong, why.BY_GPS)
        if not wrong or contradicted(len(removed), whole):
            break
        remove_images(tile.model, wrong)
        place_tile(tile, by_name, gps_sigma_m)
    if contradicted(len(removed), whole):
        reason = f"{why.MODEL_BY_GPS}: {len(removed)} of {whole} images lie elsewhere"
        tile.dropped |= dict.fromkeys(sorted(names_of(tile) | set(removed)), reason)
        return False
    tile.dropped |= removed
    return True


def _adjust(
    tile: TileModel, seams: Seams, by_name: Mapping[str, Mapping[str, Any]], gps_sigma_m: float
) -> None:
    """Adjust a joined model along its seams, in place, unless it then agrees less with GPS."""
    adjusted = TileModel(
        tile.name, pycolmap.Reconstruction(tile.model), tile.origin, tile.georegistered
    )
    adjust_seams(adjusted.model, seams)
    place_tile(adjusted, by_name, gps_sigma_m)
    before, after = (misplaced_in(each, by_name, gps_sigma_m) for each in (tile, adjusted))
    if adjusted.georegistered >= tile.georegistered and len(after) <= len(before):
        tile.model, tile.origin = adjusted.model, adjusted.origin
        tile.georegistered = adjusted.georegistered


def _without_subsets(tiles: list[TileModel]) -> list[TileModel]:
    """Return the models without those whose images are all in one larger model."""
    largest: list[TileModel] = []
    for tile in sorted(tiles, key=_largest_first):
        if not any(names_of(tile) <= names_of(other) for other in largest):
            largest.append(tile)
    return largest


def _report(
    tile: TileModel, by_name: Mapping[str, Mapping[str, Any]], gps_sigma_m: float
) -> dict[str, Any]:
    figures = place(pycolmap.Reconstruction(tile.model), by_name, gps_sigma_m)
    joining = {"joining": tile.joining} if tile.joining else {}
    return {**figures, **joining, "name": tile.name, "origin": list(tile.origin)}
