"""Committing a shard, the last step of every stage: its files first, then its ledger entry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pyarrow as pa

from vladmap.atlas import layout, storage
from vladmap.schemas import tables
from vladmap.schemas.records import FileRef, LedgerEntry, Task
from vladmap.schemas.rejects import PhotoError


def read_input(root: str, task: Task, path: str) -> bytes:
    """All bytes of a file that a task reads.

    Raises OSError if it does not exist, DamagedFile if its bytes are not those committed.
    """
    return storage.read_whole(storage.join(root, path), task.digest_of.get(path))


def reject_row(uri: str, image_id: str, stage: str, error: PhotoError) -> dict[str, str]:
    """A row of schemas.tables.REJECTS."""
    return {
        "uri": uri,
        "image_id": image_id,
        "stage": stage,
        "reason": error.reason.value,
        "detail": error.detail,
    }


def commit_shard(
    root: str,
    stage: str,
    task: Task,
    table: pa.Table,
    rejects: Iterable[Mapping[str, str]] = (),
    *,
    content: str | None = None,
    counts: Mapping[str, int] | None = None,
    parts: Mapping[str, str] | None = None,
    inputs: Mapping[str, str] | None = None,
    others: Iterable[FileRef] = (),
) -> LedgerEntry:
    """Write a shard's table and its rejects, check both, and enter them in the ledger.

    `others` are files of the shard that are already written. `inputs` are added to those that the
    task names: inputs that are only known after the work. The identity of the shard is that of its
    table, or of all its files if it has several, as later stages read patches and rejects, too.
    """
    files = [storage.commit_table(root, task.output, table), *others]
    rows = sorted(rejects, key=lambda row: row["uri"])
    reject_path = layout.rejects(stage, task.shard)
    if rows:
        reject_table = pa.Table.from_pylist([dict(row) for row in rows], schema=tables.REJECTS)
        files.append(storage.commit_table(root, reject_path, reject_table))
    else:
        storage.delete(storage.join(root, reject_path))
    if content is None and len(files) > 1:
        content = storage.combined_digest(file.digest for file in files)
    return commit_entry(
        root, stage, task, files, content=content, counts=counts, parts=parts, inputs=inputs
    )


def commit_entry(
    root: str,
    stage: str,
    task: Task,
    files: Iterable[FileRef],
    *,
    content: str | None = None,
    counts: Mapping[str, int] | None = None,
    parts: Mapping[str, str] | None = None,
    inputs: Mapping[str, str] | None = None,
) -> LedgerEntry:
    """Enter files that are already written in the ledger."""
    committed = tuple(files)
    entry = LedgerEntry(
        stage=stage,
        shard=task.shard,
        fingerprint=task.fingerprint,
        inputs={**dict(task.inputs), **(inputs or {})},
        files=committed,
        content=content or committed[0].digest,
        counts=counts or {},
        parts=parts or {},
    )
    storage.write_atomic(
        storage.join(root, layout.ledger_entry(stage, task.shard)), entry.to_json()
    )
    return entry


def commit_again(
    root: str, stage: str, entry: LedgerEntry, table: pa.Table, parts: Mapping[str, str]
) -> LedgerEntry:
    """Write the main table of a committed shard anew, with what a later stage knows of its rows.

    The identity of the shard stays: stages that read it need not run again. `parts` are added to
    its identities. A run that is killed between the file and its entry leaves an entry that does
    not hold, and the shard is computed again.
    """
    file = storage.commit_table(root, entry.file.path, table)
    made = replace(entry, files=(file, *entry.files[1:]), parts={**entry.parts, **parts})
    storage.write_atomic(
        storage.join(root, layout.ledger_entry(stage, entry.shard)), made.to_json()
    )
    return made
