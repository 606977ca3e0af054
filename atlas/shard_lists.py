"""A list of shards in a file: what names every shard does not travel in a pipeline's settings.

Beam compresses and sends the settings of a transform with each pipeline: a list of 8 MB there
takes seconds. Workers read it from the atlas instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa

from vladmap.atlas import layout, storage
from vladmap.schemas.records import FileRef

_COLUMNS = pa.schema(
    [
        ("shard", pa.string()),
        ("path", pa.string()),
        ("rows", pa.int64()),
        ("content", pa.string()),
    ]
)


class ListedShard(NamedTuple):
    """A shard with a file of it, and the rows and identity of what an earlier stage made of it;
    both empty where that is nothing."""

    shard: str
    path: str
    rows: int
    content: str


def commit_shard_list(root: str, name: str, shards: Iterable[ListedShard]) -> FileRef:
    """Write a list of shards, in their order, for the transforms that are given the result."""
    table = pa.Table.from_pylist([each._asdict() for each in shards], schema=_COLUMNS)
    return storage.commit_table(root, layout.shard_list(name), table)


def read_shard_list(root: str, file: FileRef) -> list[ListedShard]:
    """The shards of a list. Raises DamagedFile where it is not what was committed."""
    path = storage.local_copy(storage.join(root, file.path), file.digest)
    columns = storage.read_table(path, _COLUMNS.names).to_pydict().values()
    return list(map(ListedShard._make, zip(*columns, strict=True)))
