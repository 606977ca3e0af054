"""The table of poses, one row for each image that a model holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from vladmap.geodesy.wgs84 import enu_to_geodetic
from vladmap.mapping.colmap import wxyz
from vladmap.mapping.quality import Qualities
from vladmap.mapping.tile_model import TileModel
from vladmap.photos.geoparquet import boxes, points_wkb, with_geo_metadata
from vladmap.schemas import tables


def poses_table(
    models: Sequence[TileModel],
    by_name: Mapping[str, Mapping[str, Any]],
    quality: Sequence[Qualities],
) -> pa.Table:
    """Return the table schemas.tables.POSES of all models, sorted by image_id.

    An image that is in several models has the pose of the first of them, the largest. Positions are
    null where GPS could not place the model. `by_name` gives each image name its row of IMAGES,
    `quality` each model's images theirs.
    """
    rows: dict[str, dict[str, Any]] = {}
    for number, tile in enumerate(models):
        model = tile.model
        model.update_point_3d_errors()
        for image_number in sorted(model.reg_image_ids()):
            image = model.image(image_number)
            row = by_name[image.name]
            if row["image_id"] in rows:
                continue
            pose = image.cam_from_world()
            place_on_earth: Sequence[float | None] = (None, None, None)
            if tile.georegistered:
                place_on_earth = enu_to_geodetic(
                    np.asarray(pose.tgt_origin_in_src())[None], tile.origin
                )[0].tolist()
            errors = [
                model.point3D(point.point3D_id).error
                for point in image.points2D
                if point.has_point3D()
            ]
            quaternion = wxyz(pose.rotation).tolist()
            found = quality[number][image.name]
            rows[row["image_id"]] = {
                "image_id": row["image_id"],
                "name": image.name,
                "uri": row["uri"],
                "model": number,
                **dict(zip(("latitude", "longitude", "altitude"), place_on_earth, strict=True)),
                **dict(zip(("qw", "qx", "qy", "qz"), quaternion, strict=True)),
                "points": len(errors),
                "reprojection_error_px": float(np.mean(errors)) if errors else 0.0,
                "predicted_error_m": found.error_m,
                "doubt": None if found.doubt is None else found.doubt.value,
            }
    ordered = [rows[image] for image in sorted(rows)]
    latitude, longitude, altitude = (
        np.array([row[name] for row in ordered], np.float64)
        for name in ("latitude", "longitude", "altitude")
    )
    table = pa.Table.from_pylist(ordered, schema=tables.POSES)
    for name, column in (
        ("geometry", points_wkb(latitude, longitude, altitude)),
        ("bbox", boxes(latitude, longitude)),
    ):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), column)
    return with_geo_metadata(table)
