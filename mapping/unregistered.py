"""The reason for every photograph that is not in the map.

A photograph has one reason: that of the first step which it did not pass, as later steps did not
have it. Counts and names of each step are enough to tell, so that a table of a million photographs
takes a few array operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vladmap.mapping.reasons import reason_of
from vladmap.mapping.two_view import MIN_INLIERS, VERIFIED
from vladmap.photos.geoparquet import boxes, points_wkb, with_geo_metadata
from vladmap.schemas import tables
from vladmap.schemas.rejects import RejectReason, UnregisteredReason

Counts = NDArray[np.int64]
Why = tuple[str, UnregisteredReason, str]
"""Stage, reason and detail."""

IMAGE_COLUMNS = [
    "image_id",
    "name",
    "uri",
    "latitude",
    "longitude",
    "altitude",
    "duplicate_of",
]

_PLACE = ("latitude", "longitude", "altitude")
_ORDER = {reason: place for place, reason in enumerate(UnregisteredReason)}


@dataclass(frozen=True)
class MapOutcome:
    """The results of reconstruction and merging for the images of tiles.

    `tiles` are the reports of tile.json by name. By image_id, `in_models` names a model of a tile
    that holds the image, and `merge` gives the reason if merging left out an image of such a model.
    """

    tiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    in_models: Mapping[str, str] = field(default_factory=dict)
    merge: Mapping[str, str] = field(default_factory=dict)


def pairs_per_image(image_ids: pa.Array, pairs: Iterable[pa.Table]) -> Counts:
    """The number of pairs (columns image_id_a, image_id_b) of each image, (n,)."""
    counts = np.zeros(len(image_ids), np.int64)
    for table in pairs:
        for end in ("image_id_a", "image_id_b"):
            rows = pc.index_in(table[end], value_set=image_ids).drop_null().to_numpy()
            counts += np.bincount(rows, minlength=len(image_ids))
    return counts


def verified_only(two_views: pa.Table) -> pa.Table:
    """The verified rows of TWO_VIEWS, by their columns configuration and inliers."""
    scene = pc.is_in(two_views["configuration"], value_set=pa.array(sorted(VERIFIED)))
    enough = pc.greater_equal(pc.list_value_length(two_views["inliers"]), MIN_INLIERS)
    return two_views.filter(pc.and_(scene, enough))


def unregistered_table(
    images: pa.Table,
    rejects: pa.Table,
    candidates: Iterable[pa.Table],
    verified: Iterable[pa.Table],
    outcome: MapOutcome,
    registered: pa.Table,
) -> pa.Table:
    """Return schemas.tables.UNREGISTERED of every photograph without a pose, sorted by image_id.

    `images` are rows of IMAGES (IMAGE_COLUMNS) and `rejects` rows of REJECTS, those of earlier
    stages first: of a photograph that is rejected twice the first counts; they have a column `name`
    too. `candidates` and `verified` are tables of pairs (see pairs_per_image), read only where they
    are the reason. `registered` has the image_ids with a pose. The result is images and rejects
    together, less the registered.
    """
    ids, posed = (table["image_id"].combine_chunks() for table in (images, registered))
    first_reject: dict[str, dict[str, Any]] = {}
    for reject in rejects.to_pylist():
        first_reject.setdefault(reject["image_id"], reject)
    name_of = dict(zip(ids.to_pylist(), images["name"].to_pylist(), strict=True))
    of_tile = _tile_reasons(outcome)

    def earliest(image: Mapping[str, Any]) -> Why | None:
        image_id, twin = image["image_id"], image["duplicate_of"]
        if image_id in first_reject:
            return _rejected(first_reject[image_id])
        if twin is not None:
            detail = f"same bytes as {name_of.get(twin, twin)}"
            return "ingest", UnregisteredReason.DUPLICATE, detail
        if image_id in outcome.merge:
            return "merge", *_reason_in(outcome.merge[image_id], UnregisteredReason.MODEL_LEFT_OUT)
        if image_id in outcome.in_models:
            detail = f"the map has no place for model {outcome.in_models[image_id]}"
            return "merge", UnregisteredReason.MODEL_LEFT_OUT, detail
        return of_tile.get(image_id)

    missing = images.filter(pc.invert(pc.is_in(ids, value_set=posed))).to_pylist()
    reasons = [earliest(image) for image in missing]
    untold = pa.array(
        [image["image_id"] for image, why in zip(missing, reasons, strict=True) if why is None],
        pa.string(),
    )
    if len(untold):
        counts = (pairs_per_image(untold, pairs).tolist() for pairs in (candidates, verified))
        by_pairs = map(_by_pairs, *counts)
        reasons = [next(by_pairs) if why is None else why for why in reasons]
    rows = [_row(image, why) for image, why in zip(missing, reasons, strict=True) if why]
    read = set(name_of) | set(posed.to_pylist())
    rows += [
        _row(reject, _rejected(reject))
        for image_id, reject in first_reject.items()
        if image_id not in read
    ]
    return _table(sorted(rows, key=lambda row: row["image_id"]))


def _rejected(reject: Mapping[str, Any]) -> Why:
    if reject["reason"] == RejectReason.PANORAMA.value:
        return reject["stage"], UnregisteredReason.PANORAMA, reject["detail"]
    detail = f"{reject['reason']}: {reject['detail']}"
    return reject["stage"], UnregisteredReason.REJECTED, detail


def _by_pairs(candidates: int, verified: int) -> Why:
    if candidates == 0:
        return "pair", UnregisteredReason.NO_PAIR, "no photograph is a candidate for it"
    if verified == 0:
        detail = f"none of its {candidates:,} candidates shows the same scene"
        return "verify", UnregisteredReason.NO_VERIFIED_PAIR, detail
    detail = f"none of its {verified:,} verified pairs is trusted"
    return "reconstruct", UnregisteredReason.PAIRS_NOT_TRUSTED, detail


def _tile_reasons(outcome: MapOutcome) -> dict[str, Why]:
    """The reason for each image of a tile; for an image in several tiles, that of the latest step.

    If a tile has failed, that is the reason for all of its images that have no other.
    """
    reasons: dict[str, Why] = {}
    for name, report in sorted(outcome.tiles.items()):
        failure = report.get("failure")
        for image_id, words in report.get("unregistered", {}).items():
            reason, detail = _reason_in(words, UnregisteredReason.LEFT_OUT_BY_MAPPER)
            if failure and reason is UnregisteredReason.LEFT_OUT_BY_MAPPER:
                reason, detail = UnregisteredReason.TILE_FAILED, f"{name}: {failure}"
            if image_id not in reasons or _ORDER[reason] > _ORDER[reasons[image_id][1]]:
                reasons[image_id] = ("reconstruct", reason, detail)
    return reasons


def _reason_in(words: str, otherwise: UnregisteredReason) -> tuple[UnregisteredReason, str]:
    return reason_of(words) or otherwise, words


def _row(image: Mapping[str, Any], why: Why) -> dict[str, Any]:
    stage, reason, detail = why
    return {
        "image_id": image["image_id"],
        "uri": image["uri"],
        "name": image["name"],
        "stage": stage,
        "reason": reason.value,
        "detail": detail,
        **{axis: image.get(axis) for axis in _PLACE},
    }


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    place = [np.array([row[axis] for row in rows], np.float64) for axis in _PLACE]
    made = pa.Table.from_pylist(rows, schema=tables.UNREGISTERED)
    for name, column in (("geometry", points_wkb(*place)), ("bbox", boxes(*place[:2]))):
        at = made.column_names.index(name)
        made = made.set_column(at, made.schema.field(at), column)
    return with_geo_metadata(made)
