"""Reading the inputs of a task: tables in a role, shard by shard, and cameras by their key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pyarrow as pa

from vladmap.atlas import storage
from vladmap.atlas.commit import read_input
from vladmap.mapping.camera import Camera
from vladmap.schemas.records import Task


def read_tables(
    root: str, task: Task, role: str, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Yield the tables that a task reads in a role, in its order, with some columns."""
    for path in task.paths(role):
        yield storage.read_table(
            storage.join(root, path), None if columns is None else list(columns)
        )


def read_cameras(root: str, task: Task) -> dict[str, Camera]:
    """Return the chosen cameras by key, of the files that a task reads as `cameras`.

    Raises:
        ValueError: a file holds no camera.
    """
    records = (json.loads(read_input(root, task, path)) for path in task.paths("cameras"))
    return {record["key"]: Camera.from_json(record["camera"]) for record in records}
