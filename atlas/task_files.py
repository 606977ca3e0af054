"""The tasks of one pipeline in a file: Beam carries where each lies in it, some 100 bytes.

A task names all that it reads, the shards around its own with it. A runner on one machine holds
what it is given several times over, encoded and not, and would hold all of that for all shards.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable

from vladmap.atlas import layout, storage
from vladmap.schemas.records import Task
from vladmap.schemas.rejects import DamagedFile

StoredTask = tuple[str, str, int, int, str]
"""Shard, path of the file relative to the atlas, first byte, bytes, and their digest.

A plain tuple: pickled as a class of its own, each would hold its name.
"""


def write_tasks(root: str, label: str, tasks: Iterable[Task]) -> list[StoredTask]:
    """Write the tasks of the pipeline called `label`, in the place of those it had before."""
    path = layout.task_file(label)
    stored, parts, place = [], [], 0
    for task in tasks:
        data = zlib.compress(json.dumps(task.record(), separators=(",", ":")).encode(), 1)
        stored.append((task.shard, path, place, len(data), storage.digest(data)))
        parts.append(data)
        place += len(data)
    storage.write_atomic(storage.join(root, path), b"".join(parts))
    return stored


def read_task(stored: StoredTask, root: str) -> Task:
    """The task that lies there. Raises OSError where the file is missing, DamagedFile where it is
    not what was written."""
    _, path, place, length, expected = stored
    at = storage.join(root, path)
    data = storage.read_part(at, place, length)
    if storage.digest(data) != expected:
        raise DamagedFile(at, "its bytes are not those of this run's tasks")
    return Task.from_record(json.loads(zlib.decompress(data)), stored)
