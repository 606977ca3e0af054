"""The table of photographs that are not in the map, from the inputs of a merge task."""

from __future__ import annotations

import pyarrow as pa

from vladmap.atlas import layout
from vladmap.atlas.task_inputs import read_tables
from vladmap.mapping.unregistered import (
    IMAGE_COLUMNS,
    MapOutcome,
    unregistered_table,
    verified_only,
)
from vladmap.schemas import tables
from vladmap.schemas.records import Task


def read_unregistered(
    root: str, task: Task, collection: str, outcome: MapOutcome, poses: pa.Table
) -> pa.Table:
    """Return schemas.tables.UNREGISTERED: every photograph of `task` without a row in `poses`.

    The task's `images` and `rejects` are read whole, `pairs` and `two_views` shard by shard and
    only if the reason has to be looked for there. `collection` is the folder that names are
    relative to, for photographs that were never read.
    """

    def joined(role: str, schema: pa.Schema, columns: list[str]) -> pa.Table:
        empty = pa.schema([schema.field(name) for name in columns]).empty_table()
        parts = (part.cast(empty.schema) for part in read_tables(root, task, role, columns))
        return pa.concat_tables([empty, *parts])

    rejects = joined(layout.REJECTS, tables.REJECTS, tables.REJECTS.names)
    # Names are needed only of photographs without a row in `images/`, which has them.
    inside = collection.rstrip("/") + "/" if collection else ""
    names = [uri.removeprefix(inside) for uri in rejects["uri"].to_pylist()]
    ends = ["image_id_a", "image_id_b"]
    return unregistered_table(
        joined(layout.IMAGES, tables.IMAGES, IMAGE_COLUMNS),
        rejects.append_column("name", pa.array(names, pa.string())),
        read_tables(root, task, layout.PAIRS, ends),
        map(
            verified_only,
            read_tables(root, task, layout.TWO_VIEWS, [*ends, "configuration", "inliers"]),
        ),
        outcome,
        poses,
    )
