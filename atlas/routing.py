"""Routes through an atlas: its road graph, and places on it in words."""

from __future__ import annotations

import difflib
import os
import re

import pyarrow as pa

from vladmap.atlas.atlas import Atlas
from vladmap.atlas.errors import AtlasError
from vladmap.mapping.road_graph import (
    IMAGE_COLUMNS,
    PAIR_COLUMNS,
    POSE_COLUMNS,
    RoadGraph,
    road_graph,
)
from vladmap.mapping.routes import LENGTH, REACH_M, Place, Route, find_route
from vladmap.schemas.rejects import UserError

_NUMBERS = re.compile(r"\s*([+-]?\d+(?:\.\d*)?)\s*,\s*([+-]?\d+(?:\.\d*)?)\s*")


def atlas_roads(atlas: Atlas) -> RoadGraph:
    """Return the road graph of an atlas. Raises AtlasError where it has no map, or is damaged."""
    poses, images = atlas.poses(POSE_COLUMNS), atlas.images(IMAGE_COLUMNS)
    # Arrow takes times without a zone; those of an atlas are in UTC.
    images["captured_at"] = images["captured_at"].dt.tz_convert(None).astype("datetime64[us]")
    frames = poses, images, atlas.two_views(PAIR_COLUMNS)
    return road_graph(*(pa.Table.from_pandas(frame, preserve_index=False) for frame in frames))


def place_of(words: str, atlas: Atlas, graph: RoadGraph) -> Place:
    """Return the place that words name: `LAT,LON` in degrees, an image_id, or a photograph's path.

    Paths are relative to the collection, or as `uri` in images/ has them. Raises UserError for
    degrees out of range, for what is no photograph of the atlas, and for one without a usable pose.
    """
    if numbers := _NUMBERS.fullmatch(words):
        latitude, longitude = map(float, numbers.groups())
        if abs(latitude) > 90 or abs(longitude) > 180:
            raise UserError(
                f"{words} is no LAT,LON in degrees: latitudes go from -90 to 90, longitudes from "
                "-180 to 180"
            )
        return Place(None, latitude, longitude)
    images = atlas.images(["image_id", "name", "uri"])
    names: dict[str, str] = {}
    for column in ("uri", "name", "image_id"):
        names |= dict(zip(images[column], images["image_id"], strict=True))
    image_id = names.get(words) or names.get(os.path.abspath(words))
    if image_id is None:
        alike = difflib.get_close_matches(words, list(images["name"]), n=1)
        hint = f"; did you mean {alike[0]}?" if alike else ""
        raise UserError(f"{words} is no photograph of {atlas.root}, and no LAT,LON{hint}")
    if image_id not in graph.row_of:
        raise UserError(f"{words} has {_why_not(atlas, image_id)}: no route begins or ends there")
    return Place(image_id)


def _why_not(atlas: Atlas, image_id: str) -> str:
    poses = atlas.poses(["image_id", "latitude", "doubt"])
    row = poses[poses["image_id"] == image_id]
    if len(row) == 0:
        return "no pose (unregistered.parquet says why)"
    doubt = row["doubt"].iloc[0]
    return f"a pose that must not be used ({doubt})" if isinstance(doubt, str) else "no place"


def route(
    atlas: Atlas | str | os.PathLike[str],
    start: str,
    end: str,
    by: str = LENGTH,
    reach_m: float = REACH_M,
) -> Route:
    """Return the shortest route through an atlas's visual road graph.

    `start` and `end` are as `place_of` takes them, `by` is `length` or `quality`. Raises UserError
    as `find_route` and `place_of`, also for an atlas without a map.
    """
    atlas = atlas if isinstance(atlas, Atlas) else Atlas(atlas)
    try:
        graph = atlas_roads(atlas)
        first, last = (place_of(words, atlas, graph) for words in (start, end))
    except AtlasError as error:
        raise UserError(str(error)) from error
    return find_route(graph, first, last, by, reach_m)
