"""How exact each position of a map is expected to be, and which photographs must not be used.

What speaks against a position: the observations hold it loosely, its own observations do not fit
it, the map contradicts the pairs that should join it to the rest, or its drive jumps there. None of
these needs the truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.drive_jumps import beyond_jumps
from vladmap.mapping.gps import DEFAULT_ACCURACY_M, gps_positions
from vladmap.mapping.graph import connected_components
from vladmap.mapping.mapper import image_names
from vladmap.mapping.point_agreement import PairPoints, pair_points
from vladmap.mapping.soundness import sequences_of
from vladmap.mapping.tile_arrays import tile_arrays
from vladmap.mapping.tile_model import TileModel, names_of
from vladmap.mapping.uncertainty import held_positions
from vladmap.schemas.rejects import PoseDoubt

DOUBTFUL_M = 0.5
"""A photograph with a larger predicted error must not be used: errors are seldom over twice those
predicted."""

# Matches of one surface err together, which the covariance does not know: in rendered cities
# errors were so many times what it says (docs/performance.md).
_ERROR_FACTOR = 1.5

# The map contradicts a photograph if it contradicts more than this share of its pairs.
_MOST_TORN = 0.5


@dataclass(frozen=True)
class PoseQuality:
    """The predicted error of a position in metres, None where the model has no scale, and why the
    photograph must not be used, None where nothing speaks against it."""

    error_m: float | None
    doubt: PoseDoubt | None


Qualities = dict[str, PoseQuality]
"""By image name."""


def qualities(
    tile: TileModel,
    by_name: Mapping[str, Mapping[str, Any]],
    gps_sigma_m: float = DEFAULT_ACCURACY_M,
    two_views: Iterable[pa.Table] = (),
) -> Qualities:
    """Return the quality of each photograph of a model.

    `by_name` gives each image name its row of IMAGES; `two_views` are tables of pairs, as
    `pair_points` takes them.
    """
    names = image_names(tile.model)
    arrays = tile_arrays(tile.model, {name: row for row, name in enumerate(names)})
    usable = DOUBTFUL_M / _ERROR_FACTOR if tile.georegistered else np.inf
    error = _ERROR_FACTOR * held_positions(tile.model, arrays, usable).error
    loose = ~(error <= DOUBTFUL_M) if tile.georegistered else np.zeros(len(names), bool)
    row_of = {by_name[name]["image_id"]: row for row, name in enumerate(names)}
    pairs = pair_points(arrays, row_of, two_views)
    torn = torn_images(pairs, len(names))
    held = np.stack([pairs.first, pairs.second])[:, pairs.held()]
    jumped = _beyond_jumps(tile, names, arrays.centres, by_name, gps_sigma_m, held)
    # The clearest reason first: what is torn or lies beyond a jump is often loose as well.
    reasons = ((torn, PoseDoubt.TORN), (jumped, PoseDoubt.JUMP), (loose, PoseDoubt.LOOSE))
    doubt = [
        next((reason for marked, reason in reasons if marked[row]), None)
        for row in range(len(names))
    ]
    known: list[float | None] = [
        value if tile.georegistered and np.isfinite(value) else None for value in error.tolist()
    ]
    found = map(PoseQuality, known, doubt)
    return dict(zip(names, found, strict=True))


def _beyond_jumps(
    tile: TileModel,
    names: Sequence[str],
    centres: Array,
    by_name: Mapping[str, Mapping[str, Any]],
    gps_sigma_m: float,
    held: Indices,
) -> Bools:
    if not tile.georegistered:
        return np.zeros(len(names), bool)
    rows = [by_name[name] for name in names]
    gps = gps_positions(rows, tile.origin, gps_sigma_m)
    return beyond_jumps(centres, *sequences_of(rows), gps.enu, gps.sigma, held)


def torn_images(pairs: PairPoints, images: int) -> Bools:
    """Return which of the images the map contradicts, (images,).

    Pairs that the map holds join images to pieces. Contradicted are the images of a piece that is
    not the largest and that torn pairs should join to others; and each image most of whose pairs
    are torn.
    """
    held, torn = pairs.held(), pairs.torn()
    piece = connected_components(images, pairs.first[held], pairs.second[held])
    largest = int(np.argmax(np.bincount(piece))) if images else 0
    between = torn & (piece[pairs.first] != piece[pairs.second])
    ends = np.concatenate([pairs.first[between], pairs.second[between]])
    apart = np.isin(piece, piece[ends]) & (piece != largest)

    def of_each(chosen: Bools) -> Array:
        both = np.concatenate([pairs.first[chosen], pairs.second[chosen]])
        return np.bincount(both, minlength=images).astype(np.float64)

    torn_pairs, held_pairs = of_each(torn), of_each(held)
    return np.asarray(apart | (torn_pairs > _MOST_TORN * (torn_pairs + held_pairs)))


def figures(found: Iterable[PoseQuality]) -> dict[str, Any]:
    """Return the figures of some photographs: median and largest error, and doubts by name."""
    found = list(found)
    errors = [each.error_m for each in found if each.error_m is not None]
    doubts = [each.doubt.value for each in found if each.doubt is not None]
    known = {"predicted_error_median_m": float(np.median(errors))} if errors else {}
    if errors:
        known["predicted_error_max_m"] = float(np.max(errors))
    return {**known, "doubtful": {name: doubts.count(name) for name in sorted(set(doubts))}}


def tile_figures(
    tiles: Sequence[TileModel], by_model: Sequence[Qualities]
) -> dict[str, dict[str, Any]]:
    """Return the figures of each tile's model by its name, over its photographs in the map."""
    first: Qualities = {}
    for of_model in by_model:
        first = {**of_model, **first}
    return {
        tile.name: figures(first[name] for name in sorted(names_of(tile)) if name in first)
        for tile in tiles
    }
