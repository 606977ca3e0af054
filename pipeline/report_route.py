"""The example of a route in the report: the longest way through the map, with pictures."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from vladmap.atlas.judged_views import judged_views
from vladmap.mapping.road_graph import IMAGE_COLUMNS, PAIR_COLUMNS, POSE_COLUMNS, road_graph
from vladmap.mapping.routes import WORDS, Place, farthest_apart, find_route
from vladmap.pipeline.ledgers import paths_of
from vladmap.pipeline.report_pictures import pictures_of
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages.verify import VERIFY
from vladmap.reporting.data import RouteExample, RouteStep
from vladmap.schemas import tables

MOST_PHOTOGRAPHS = 100_000
"""Of more the report has no example: the road graph takes some 2 kB a photograph."""

_MOST_STEPS = 12


def route_example(run: Run, images: pa.Table, poses: pa.Table) -> RouteExample | None:
    """Return the shortest route between two photographs that are far apart, None without any."""
    if not 1 < poses.num_rows <= MOST_PHOTOGRAPHS:
        return None
    if any(name not in poses.column_names for name in POSE_COLUMNS):
        return None  # The map is of an older version; merge makes it anew.
    graph = road_graph(poses, images.select(IMAGE_COLUMNS), _pairs(run))
    ends = farthest_apart(graph)
    if ends is None:
        return None
    ids = graph.table["image_id"].to_pylist()
    first, last = (Place(ids[row]) for row in ends)
    route = find_route(graph, first, last)
    along = [ids[row] for row in route.rows.tolist()]
    told = route.instructions
    if len(told) > _MOST_STEPS:
        told = [*told[: _MOST_STEPS - 1], told[-1]]
    shown = [along[each.step] for each in told]
    rows = images.filter(pc.is_in(images["image_id"], value_set=pa.array(shown, pa.string())))
    seen = pictures_of(run, images, rows)
    steps = [
        RouteStep(WORDS[each.action], each.at_m, image, seen.get(image))
        for each, image in zip(told, shown, strict=True)
    ]
    return RouteExample(along, route.length_m, route.facts()["predicted_error_mean_m"], steps)


def _pairs(run: Run) -> pa.Table:
    """The verdicts on pairs, of the shards that have been judged."""
    schema = pa.schema([tables.TWO_VIEWS.field(name) for name in PAIR_COLUMNS])
    paths = (run.atlas.path(path) for path in paths_of(run, VERIFY))
    parts = (table.cast(schema) for table in judged_views(paths, PAIR_COLUMNS))
    return pa.concat_tables([schema.empty_table(), *parts])
