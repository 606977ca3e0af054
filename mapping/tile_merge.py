"""Merging: tiles' models into as few as agree, each join verified before it is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vladmap.features.colmap import pycolmap
from vladmap.mapping import reasons as why
from vladmap.mapping.evidence import keep_evident
from vladmap.mapping.gps import DEFAULT_ACCURACY_M
from vladmap.mapping.mapper import MapperOptions, bundle_adjust
from vladmap.mapping.placement import place
from vladmap.mapping.soundness import contradicted, misplaced_images, remove_images
from vladmap.mapping.tile_join import join_tiles
from vladmap.mapping.tile_model import TileModel, misplaced_in, names_of, place_tile

IMAGE_COLUMNS = [
    "image_id", "name", "uri", "content_hash", "latitude", "longitude", "altitude",
    "gps_accuracy_m", "heading_deg", "sequence_id", "sequence_index",
]  # fmt: skip
"""Columns of IMAGES that merging, colouring and the poses need."""

_MIN_COMMON_IMAGES = 3
# Removing images moves the others a little, so the rest is tested again, at most so many times.
_ROUNDS = 3


@dataclass(frozen=True)
class Merged:
    """The result of a merge.

    `models` are in order of decreasing size, `reports` their figures, `decisions` one JSON object
    for each join that was tried. `unregistered` gives the reason for each image name that is in a
    tile's model and in none of these; `left_out` lists the models that GPS contradicts.
    """

    models: list[TileModel]
    reports: list[dict[str, Any]]
    decisions: list[dict[str, Any]]
    unregistered: dict[str, str]
    left_out: list[dict[str, Any]]

    def report(self, reasons: Mapping[str, str], colours: Mapping[str, Any]) -> dict[str, Any]:
        """Return merge.json: `reasons` are `unregistered` by image_id, `colours` of the points."""
        return {
            "models": self.reports,
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
    """Join models that share images, largest first, for as long as joins succeed.

    `by_name` gives each COLMAP image name its row of IMAGES. Two models are joined if their common
    images agree in position and direction and if GPS and sequences do not contradict the result;
    each refusal is reported with its figures. A joined model is bundle-adjusted and georegistered
    as a whole, about an origin of its own. Images without evidence in the result are removed.
    """
    joined, decisions = _joined(tiles, by_name, gps_sigma_m)
    holds = [(tile, _adjust_and_test(tile, by_name, gps_sigma_m)) for tile in joined]
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
    """Return the models after all joins that succeed, and the decision on each that was tried."""
    waiting = sorted(tiles, key=_largest_first)
    decisions: list[dict[str, Any]] = []
    finished: list[TileModel] = []
    while waiting:
        base = waiting.pop(0)
        refused: set[str] = set()
        while partner := _best_partner(base, waiting, refused):
            model, decision = join_tiles(base, partner, by_name, gps_sigma_m)
            decisions.append(decision)
            if model is None:
                refused.add(partner.name)
                continue
            waiting.remove(partner)
            base, refused = model, set()
        finished.append(base)
    return finished, decisions


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
            part = TileModel(name, model, tile.origin, tile.georegistered)
            if model.num_reg_images() < images:
                place_tile(part, by_name, gps_sigma_m)
            evident.append(part)
    return evident, dropped


def _best_partner(
    base: TileModel, waiting: Sequence[TileModel], refused: set[str]
) -> TileModel | None:
    names = names_of(base)
    common = [(len(names & names_of(tile)), tile) for tile in waiting if tile.name not in refused]
    usable = [item for item in common if item[0] >= _MIN_COMMON_IMAGES]
    return max(usable, key=lambda item: item[0])[1] if usable else None


def _adjust_and_test(
    tile: TileModel, by_name: Mapping[str, Mapping[str, Any]], gps_sigma_m: float
) -> bool:
    """Adjust a joined model and remove, in place, the images that GPS and sequences contradict.

    Returns False for a model that is contradicted as a whole.
    """
    if tile.parts > 1:
        _adjust(tile, by_name, gps_sigma_m)
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


def _adjust(tile: TileModel, by_name: Mapping[str, Mapping[str, Any]], gps_sigma_m: float) -> None:
    """Bundle-adjust a model as a whole, in place, unless that makes it agree less with GPS."""
    adjusted = TileModel(
        tile.name, pycolmap.Reconstruction(tile.model), tile.origin, tile.georegistered
    )
    bundle_adjust(adjusted.model, refine_focal=False, refine_distortion=False)
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
    return {**figures, "name": tile.name, "origin": list(tile.origin)}
