"""What the stages left behind of photographs that are not in the map, read for its table."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from vladmap.atlas import storage
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
    """schemas.tables.UNREGISTERED of all that `task` reads and that has no row in `poses`.

    It reads `images/`, `rejects/` and, shard by shard and only where they are the reason, `pair/`
    and `verify/`.
    """

    def parts(role: str, columns: list[str]) -> Iterator[pa.Table]:
        for name, path in task.reads:
            if name.startswith(f"{role}/"):
                yield storage.read_table(storage.join(root, path), columns)

    def joined(role: str, schema: pa.Schema, columns: list[str]) -> pa.Table:
        empty = pa.schema([schema.field(name) for name in columns]).empty_table()
        found = [part.cast(empty.schema) for part in parts(role, columns)]
        return pa.concat_tables([empty, *found])

    rejects = joined("rejects", tables.REJECTS, tables.REJECTS.names)
    # Only of photographs that have no row in `images/`: there the name stands.
    inside = collection.rstrip("/") + "/" if collection else ""
    names = [uri.removeprefix(inside) for uri in rejects["uri"].to_pylist()]
    ends = ["image_id_a", "image_id_b"]
    return unregistered_table(
        joined("images", tables.IMAGES, IMAGE_COLUMNS),
        rejects.append_column("name", pa.array(names, pa.string())),
        parts("pair", ends),
        map(verified_only, parts("verify", [*ends, "configuration", "inliers"])),
        outcome,
        poses,
    )
