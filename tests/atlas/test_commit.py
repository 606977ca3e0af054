"""What the ledger says of a shard."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_shard, reject_row
from vladmap.schemas.records import LedgerEntry, Task
from vladmap.schemas.rejects import PhotoError, RejectReason


def committed(root: Path, patches: bytes | None = None, reason: str = "") -> LedgerEntry:
    task = Task("s", "none", "descriptors/s.parquet", "same")
    others = [storage.commit_file(str(root), "patches/s", patches, 1)] if patches else []
    error = PhotoError(RejectReason(reason), "so") if reason else None
    rejects = [reject_row("a.jpg", "0", "describe", error)] if error else []
    return commit_shard(str(root), "describe", task, pa.table({"x": [1]}), rejects, others=others)


def test_a_shards_identity_is_that_of_all_its_files(tmp_path: Path) -> None:
    """Issue 19, 12: patches of another length left the pairs that they had put in order."""
    plain = committed(tmp_path)
    entries = [
        plain,
        committed(tmp_path, b"patches of 32 numbers"),
        committed(tmp_path, b"patches of 64 numbers"),
        committed(tmp_path, reason="missing"),
        committed(tmp_path, reason="changed"),
    ]
    assert plain.content == plain.file.digest
    assert len({entry.content for entry in entries}) == 5
    assert len({entry.file.digest for entry in entries}) == 1
    assert committed(tmp_path).content == plain.content
