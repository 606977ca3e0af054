"""What was found of photographs, as rows of the table `localisations`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from vladmap.geodesy.headings import headings_deg
from vladmap.localisation.judge import Verdict, sigma_m
from vladmap.localisation.locate import Evidence
from vladmap.localisation.map_view import MapView
from vladmap.photos.geoparquet import boxes, points_wkb, with_geo_metadata
from vladmap.schemas.localisation_tables import (
    LOCALISATIONS,
    LocalisationReason,
    LocalisationStatus,
)
from vladmap.schemas.rejects import PhotoError

_GEOMETRY = ("geometry", "bbox")
_NOTHING: dict[str, Any] = {
    **{name: None for name in LOCALISATIONS.names if name not in _GEOMETRY},
    "inliers": 0,
    "matched": 0,
}


def row_of(
    view: MapView, names: dict[str, str], evidence: Evidence, verdict: Verdict
) -> dict[str, Any]:
    """The row of a photograph; `names` has its image_id, name and uri.

    A pose is written only where one is told: of others the row has no position.
    """
    best, rival, place = evidence.best, evidence.rival, verdict.place
    row = _NOTHING | names
    row |= {
        "status": verdict.status.value,
        "reason": None if verdict.reason is None else verdict.reason.value,
        "detail": verdict.detail,
        "inliers": 0 if best is None else best.keypoints,
        "matched": 0 if best is None else best.matched,
        "rival_inliers": None if rival is None else rival.keypoints,
        "explained_share": verdict.explained,
        "camera_source": evidence.camera_source,
    }
    if place is not None:
        shown = view.photograph(place.image_id)
        row |= {
            "place": place.image_id,
            "place_name": shown.name,
            "place_rank": place.rank,
            "place_similarity": place.similarity,
            "place_inliers": verdict.place_inliers,
            "place_latitude": _known(shown.latitude),
            "place_longitude": _known(shown.longitude),
        }
    if verdict.status is LocalisationStatus.POSE and best is not None:
        pose, stored = best.pose, best.model.stored
        row |= dict(zip(("qw", "qx", "qy", "qz"), pose.quaternion.tolist(), strict=True))
        row |= {
            "map_model": stored.number,
            "reprojection_error_px": pose.error_px,
            "focal_px": pose.camera.focal_px,
        }
        if stored.georegistered:
            (heading,) = headings_deg(pose.quaternion[None]).tolist()
            latitude, longitude, altitude = stored.geographic(pose.centre).tolist()
            row |= {
                "latitude": latitude,
                "longitude": longitude,
                "altitude": altitude,
                "heading_deg": _known(heading),
                "covariance_m2": pose.covariance[:3, :3].ravel().tolist(),
                "sigma_m": sigma_m(best),
            }
    return row


def rejected_row(names: dict[str, str], error: PhotoError) -> dict[str, Any]:
    """The row of a photograph that cannot be used."""
    return (
        _NOTHING
        | names
        | {
            "status": LocalisationStatus.UNKNOWN.value,
            "reason": LocalisationReason.REJECTED.value,
            "detail": f"{error.reason.value}: {error.detail}",
        }
    )


def localisations_table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Rows as a GeoParquet table of schema LOCALISATIONS, sorted by image_id.

    The geometry is the pose's, or that of the photograph that shows the same place.
    """
    ordered = sorted(rows, key=lambda row: row["image_id"])
    latitude, longitude, altitude = (
        np.array([_place(row, name) for row in ordered], np.float64)
        for name in ("latitude", "longitude", "altitude")
    )
    table = pa.Table.from_pylist(
        [{**row, **dict.fromkeys(_GEOMETRY)} for row in ordered], schema=LOCALISATIONS
    )
    for name, column in (
        ("geometry", points_wkb(latitude, longitude, altitude)),
        ("bbox", boxes(latitude, longitude)),
    ):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), column)
    return with_geo_metadata(table)


def _place(row: dict[str, Any], name: str) -> float:
    value = row[name]
    if value is None and row["status"] == LocalisationStatus.PLACE.value:
        value = row.get(f"place_{name}")
    return math.nan if value is None else value


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
