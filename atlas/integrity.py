"""Checking an atlas: every file against the ledger, and the tables against each other."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vladmap.atlas import layout, storage
from vladmap.atlas.ledger import LostLine
from vladmap.atlas.ledger_folds import delete_lines
from vladmap.atlas.store import AtlasStore
from vladmap.schemas import loop_tables, tables
from vladmap.schemas.records import FileRef, LedgerEntry

_SCHEMAS = {
    layout.IMAGES: tables.IMAGES,
    layout.REJECTS: tables.REJECTS,
    layout.PAIRS: tables.PAIRS,
    layout.TWO_VIEWS: tables.TWO_VIEWS,
    layout.POSES: tables.POSES,
    layout.UNREGISTERED: tables.UNREGISTERED,
    layout.COVERAGE: tables.COVERAGE,
    layout.LOOPS: loop_tables.LOOPS,
    layout.DRIVES: loop_tables.DRIVES,
}
_IDS = ("image_id", "image_id_a", "image_id_b")
_NOT_OF_IMAGES = (layout.WORK, layout.REJECTS)


class Finding(NamedTuple):
    """One defect of an atlas, and the ledger entry that is invalid because of it, if any."""

    path: str
    why: str
    stage: str = ""
    shard: str = ""


def check_atlas(
    atlas: AtlasStore, advance: Callable[[int], object] = lambda files: None
) -> list[Finding]:
    """All defects of an atlas; empty if there are none.

    Every committed file is read: its size and digest are checked, whether it can be parsed, its
    schema and number of rows, and whether each image id is in `images/`. Files that no ledger entry
    lists are defects, too. `advance` is called with the number of files read since its last call.
    Nothing is written.
    """
    atlas.doubted = True
    findings = []
    entries = []
    for stage in atlas.stage_names():
        held = atlas.ledger(stage, refresh=True).values()
        advance(sum(len(entry.files) for entry in held))
        findings += [
            Finding(line.path, line.why, stage, line.shard) for line in _lost(atlas, stage)
        ]
        entries += [(stage, entry) for entry in held]
    known = _image_ids(atlas)

    def check(item: tuple[str, LedgerEntry]) -> list[Finding]:
        stage, entry = item
        return [
            Finding(atlas.path(file.path), why, stage, entry.shard)
            for file in entry.files
            for why in _of_file(atlas, file, known)
        ]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        findings += [finding for wrong in pool.map(check, entries) for finding in wrong]
    strays = atlas.strays()
    return findings + [
        Finding(atlas.path(path), "no line of the ledger knows it") for path in strays
    ]


def _lost(atlas: AtlasStore, stage: str) -> Iterable[LostLine]:
    return atlas.lost[stage].values()


def count_files(atlas: AtlasStore) -> int:
    """The number of files in the ledger."""
    return sum(
        len(entry.files) for stage in atlas.stage_names() for entry in atlas.ledger(stage).values()
    )


def forget(atlas: AtlasStore, findings: Iterable[Finding]) -> None:
    """Delete from an atlas the invalid ledger entries, damaged files, and files in no entry.

    The next build computes again what is then missing.
    """
    found = list(findings)
    by_stage: dict[str, set[str]] = defaultdict(set)
    for finding in found:
        if finding.shard:
            by_stage[finding.stage].add(finding.shard)
    for stage, shards in sorted(by_stage.items()):
        delete_lines(atlas.root, stage, shards)
    fold = {atlas.path(layout.ledger_fold(stage)) for stage in by_stage}
    for finding in found:
        if finding.path in fold:
            continue  # the other lines in it hold
        if finding.shard or not finding.stage:
            storage.delete(finding.path)


def behind(atlas: AtlasStore) -> int:
    """Ledger entries whose inputs have changed since: the next build computes them again."""
    return sum(
        any(atlas.content(key) != value for key, value in entry.inputs.items())
        for stage in atlas.stage_names()
        for entry in atlas.ledger(stage).values()
    )


def _image_ids(atlas: AtlasStore) -> NDArray[np.str_]:
    """The image ids of all shards that can be read, sorted."""
    parts = [np.zeros(0, "U32")]
    for entry in atlas.image_shards().values():
        try:
            table = storage.read_table(atlas.path(entry.file.path), ["image_id"])
        except OSError:
            continue  # reported as a finding of its own
        parts.append(table["image_id"].to_numpy().astype("U32"))
    return np.sort(np.concatenate(parts))


def _of_file(atlas: AtlasStore, file: FileRef, known: NDArray[np.str_]) -> Iterator[str]:
    """The defects in the content of a file whose bytes are those committed."""
    if not file.path.endswith(".parquet"):
        return
    folder = layout.top(file.path)
    try:
        schema = storage.read_schema(atlas.path(file.path))
        names = [name for name in _IDS if name in schema.names]
        table = storage.read_table(atlas.path(file.path), names) if names else None
        rows = storage.row_count(atlas.path(file.path))
    except OSError as error:
        yield str(error)
        return
    if rows != file.rows:
        yield f"it has {rows} rows, {file.rows} were committed"
    if folder in _SCHEMAS and not _fits(schema, _SCHEMAS[folder]):
        yield "its columns are not those of its table"
    if table is None or folder in _NOT_OF_IMAGES:
        return
    for name in names:
        ids = table[name].to_numpy().astype(str)
        unknown = ids[~np.isin(ids, known)]
        if len(unknown):
            first = str(unknown[0])
            yield f"{name}: {len(unknown)} ids that images/ does not know (first: {first!r})"


def _fits(schema: pa.Schema, contract: pa.Schema) -> bool:
    """Whether a file has the columns of its table. Pairs that an older version verified, and that
    were not judged since, lack those of the judgement, and its poses those of their quality."""
    later = (*tables.JUDGEMENT, *tables.QUALITY)
    older = pa.schema([field for field in contract if field.name not in later])
    found = schema.remove_metadata()
    return bool(found.equals(contract.remove_metadata()) or found.equals(older))
