"""Exports the position and the viewing direction of each photograph as GeoJSON (RFC 7946)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow.compute as pc

from vladmap.atlas import layout, storage
from vladmap.atlas.store import AtlasStore
from vladmap.exports.base import Exporter, Outcome, Settings, model_facts, new_folder
from vladmap.geodesy.headings import headings_deg

_DIGITS = 8
"""Decimals of a degree: a millimetre on the ground."""


class GeoJsonExporter(Exporter):
    """One file, `poses.geojson`: a point for each photograph of the model with a known position."""

    def export(
        self,
        atlas: AtlasStore,
        settings: Settings,
        progress: Callable[[], object] = lambda: None,
    ) -> Outcome:
        """See Exporter.export. A photograph without a position on earth is counted as missing."""
        atlas.require(("merge",))
        model_facts(atlas, settings.model)
        poses = storage.read_table(atlas.path(layout.POSES))
        rows = poses.filter(pc.equal(poses["model"], settings.model)).sort_by("name").to_pylist()
        with new_folder(settings.output) as output:
            features, missing = [], []
            for row in rows:
                if row["latitude"] is None:
                    missing.append((row["name"], "GPS places no part of its model"))
                else:
                    features.append(_feature(row))
                progress()
            collection = {"type": "FeatureCollection", "features": features}
            text = json.dumps(collection, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
            (output / "poses.geojson").write_text(text, encoding="utf-8")
        line = f"{len(features)} photographs in {output / 'poses.geojson'}"
        return Outcome((line,), len(rows), tuple(missing))


EXPORTER = GeoJsonExporter()


def _feature(row: Mapping[str, Any]) -> dict[str, Any]:
    position = [round(row["longitude"], _DIGITS), round(row["latitude"], _DIGITS)]
    if row["altitude"] is not None:
        position.append(round(row["altitude"], 3))
    (heading,) = headings_deg([[row[name] for name in ("qw", "qx", "qy", "qz")]]).tolist()
    return {
        "type": "Feature",
        "id": row["image_id"],
        "geometry": {"type": "Point", "coordinates": position},
        "properties": {
            "name": row["name"],
            "heading_deg": None if math.isnan(heading) else round(heading, 2),
            "points": row["points"],
            "reprojection_error_px": round(row["reprojection_error_px"], 3),
        },
    }
