"""Which files of a collection are new, planned in generations.

Files that are in no earlier plan become a new generation, cut into chunks of the listing. The plan
is committed before the work begins, so that a killed run is resumed with the same chunks and
shards, and a collection that grows gets new shards beside those that it has.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_entry
from vladmap.atlas.store import AtlasStore
from vladmap.photos.ids import image_id
from vladmap.pipeline.collection import Listing
from vladmap.pipeline.stages.ingest import PLAN, SCAN
from vladmap.schemas.ingest_tables import LISTING, PLANNED
from vladmap.schemas.records import NO_CELL, LedgerEntry, Task

_CHUNK = re.compile(r"g\d+-\d+")

_ROWS_AT_ONCE = 10_000

DEAD = pa.schema([("chunk", pa.string()), ("path", pa.string())])


@dataclass(frozen=True)
class Plan:
    """Chunks of the listing in the order of their planning, and which of their rows are stale.

    `alive` is the number of files of each chunk that are in the collection as they were planned.
    """

    chunks: Sequence[tuple[str, str]]  # name, and path of the chunk's table
    alive: dict[str, int]
    dead: pa.Table
    fresh: int


def plan(
    atlas: AtlasStore,
    listing: Listing,
    chunk_images: int,
    *,
    write: bool,
    doubtful: Set[str] = frozenset(),
) -> Plan:
    """Extend the atlas's plans by the files that are new or changed.

    `doubtful` are ids of images whose files a later stage found missing or changed: they count as
    changed, whatever the listing says. If `write` is false nothing is written, and the plan serves
    only to count.
    """
    entries = {
        name: entry
        for name, entry in sorted(atlas.ledger(PLAN.name).items())
        if _is_generation(entry)
    }
    known: dict[bytes, int] = {}
    chunk_of: list[str] = []  # by the place of a planned row, as are those that are alive
    for place, (chunk, row) in enumerate(_planned(atlas, entries.values())):
        # A state that was planned twice was doubted: what was read last counts.
        known[_state(row)] = place
        chunk_of.append(chunk)
    again: set[str] = set()
    fresh: list[int] = []  # rows of the listing
    alive = bytearray(len(chunk_of))
    for number, row in enumerate(_rows(listing.table)):
        place = known.get(_state(row), -1)
        if doubtful and image_id(row["path"]) in doubtful:
            again.add(row["path"])
        elif place >= 0:
            alive[place] = True
            continue
        fresh.append(number)
    counts = dict(Counter(itertools.compress(chunk_of, alive)))
    before = list(entries.values())
    if fresh and write:
        new = listing.table.take(pa.array(fresh))
        homes = _homes(atlas, before, set(new["path"].to_pylist()) - again)
        name = _last_name(entries) if again else _free_name(entries)
        entry = _write_generation(atlas, name, new, homes, chunk_images)
        entries[entry.shard] = atlas.ledger(PLAN.name)[entry.shard] = entry
        counts |= {_chunk_name(file.path): file.rows for file in entry.files}
    dead = _dead(atlas, before, alive)
    table = pa.Table.from_pylist([dict(zip(DEAD.names, each, strict=True)) for each in dead], DEAD)
    chunks = [
        (_chunk_name(file.path), file.path)
        for _, entry in sorted(entries.items())
        for file in entry.files
    ]
    return Plan(chunks, counts, table, len(fresh))


def _dead(
    atlas: AtlasStore, entries: Iterable[LedgerEntry], alive: Sequence[int]
) -> list[tuple[str, str]]:
    """(chunk, path), sorted, of the planned rows that are not alive."""
    if all(alive):
        return []
    rows = zip(_planned(atlas, entries), alive, strict=True)
    return sorted((chunk, row["path"]) for (chunk, row), lives in rows if not lives)


def _planned(
    atlas: AtlasStore, entries: Iterable[LedgerEntry]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (chunk, row) of every plan, the oldest first."""
    for entry in entries:
        for file in entry.files:
            for row in storage.read_table(atlas.path(file.path)).to_pylist():
                yield _chunk_name(file.path), row


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a table, some at a time: as Python's objects they take ten times the memory."""
    for batch in table.to_batches(_ROWS_AT_ONCE):
        yield from batch.to_pylist()


def _state(row: Mapping[str, object]) -> bytes:
    """What a file has to be like to count as read, as a digest: the collection may be large.

    A plan of an older vladmap knew less of it: none of its files is like that, and each is read
    once more.
    """
    values = repr([row.get(name) for name in LISTING.names])
    return hashlib.blake2b(values.encode("utf-8", "surrogateescape"), digest_size=16).digest()


_NO_HOME: dict[str, str | None] = {"home": None, "home_hash": None}


def _homes(
    atlas: AtlasStore, entries: Iterable[LedgerEntry], paths: Set[str]
) -> dict[str, dict[str, str | None]]:
    """`home` and `home_hash` of paths that were read before, by what was read last."""
    homes: dict[str, dict[str, str | None]] = {}
    last: dict[str, set[str]] = {}
    for chunk, row in _planned(atlas, entries):
        path = row["path"]
        if path in paths:
            # If the files of a plan were never read, what was known when it was made is used.
            homes.setdefault(path, _NO_HOME)
            if row.get("home"):
                homes[path] = {name: row[name] for name in _NO_HOME}
            last.setdefault(chunk, set()).add(path)
    for chunk, entry in sorted(atlas.ledger(SCAN.name).items()):
        if chunk not in last:
            continue
        for row in storage.read_table(atlas.path(entry.file.path)).to_pylist():
            if row["path"] in last[chunk] and row["content_hash"]:
                home = row.get("home") or chunk
                homes[row["path"]] = {"home": home, "home_hash": row["content_hash"]}
    return homes


def _chunk_name(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".parquet")


def _is_generation(entry: LedgerEntry) -> bool:
    """Whether names are those that `_write_generation` gives; shards are named after them."""
    return all(
        file.path.startswith(layout.plan_chunks(entry.shard))
        and _CHUNK.fullmatch(_chunk_name(file.path))
        for file in entry.files
    )


def _free_name(taken: Container[str]) -> str:
    """The first name of a generation that no plan has.

    A plan that was lost leaves its name free. Its files then count as new and become the same
    chunks again, so that their results stay valid.
    """
    return next(name for number in itertools.count() if (name := f"g{number:04d}") not in taken)


def _last_name(taken: Collection[str]) -> str:
    """The name after those of all plans: files that are read again come after what they correct."""
    return f"g{1 + max((int(name[1:]) for name in taken), default=-1):04d}"


def _write_generation(
    atlas: AtlasStore,
    name: str,
    new: pa.Table,
    homes: Mapping[str, dict[str, str | None]],
    chunk_images: int,
) -> LedgerEntry:
    files = []
    for number, start in enumerate(range(0, new.num_rows, chunk_images)):
        listed = new.slice(start, chunk_images).to_pylist()
        rows = [{**row, **homes.get(row["path"], _NO_HOME)} for row in listed]
        table = pa.Table.from_pylist(rows, schema=PLANNED)
        files.append(storage.commit_table(atlas.root, layout.plan_chunk(name, number), table))
    task = Task(name, NO_CELL, files[0].path, PLAN.fingerprint())
    content = storage.combined_digest(file.digest for file in files)
    return commit_entry(atlas.root, PLAN.name, task, files, content=content)
