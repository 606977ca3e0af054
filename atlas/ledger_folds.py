"""Lines of the ledger that were folded into one file a stage: a start reads it, not thousands.

A line of its own, `ledger/<stage>/<shard>.json`, is newer than the one in the fold, and counts in
its place. Folding writes the whole fold anew, under a temporary name, and deletes the lines that
it has taken in when it is on the disk: a run that is killed between leaves both, and they agree.

Each line of a fold is sealed on its own, so that damage costs one shard:

    <seal> <shard> <believed> <entry as JSON>

The seal is the digest of what stands behind it. `believed` is when the entry's files had last
changed, by the file system's clock, when they were last compared with it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from vladmap.atlas import layout, storage
from vladmap.schemas.records import LedgerEntry, is_plain_path

FOLD_FROM = 256
"""Lines of their own from which on a stage's ledger is folded."""


class LedgerLine(NamedTuple):
    """A line of the ledger: the entry in it, or None and why there is none.

    `path` is the file it stands in. Of a line in a fold `text` is all of it, and `believed` as
    above; one of its own is as old as its file.
    """

    path: str
    shard: str
    entry: LedgerEntry | None
    why: str
    text: bytes = b""
    believed: float | None = None


def read_line(path: str) -> LedgerLine:
    """A line in a file of its own. An entry that names another place than its own is none."""
    shard = path.rpartition("/")[2].removesuffix(".json")
    try:
        entry = LedgerEntry.from_json(storage.read_bytes(path))
    except OSError as error:
        return LedgerLine(path, shard, None, error.strerror or str(error))
    except ValueError as error:
        return LedgerLine(path, shard, None, str(error))
    place = layout.ledger_entry(entry.stage, entry.shard)
    if not path.endswith(f"/{place}"):
        return LedgerLine(path, shard, None, f"it speaks of {place}")
    return LedgerLine(path, shard, entry, "")


def read_fold(root: str, stage: str) -> list[LedgerLine]:
    """The lines of a stage's fold in their order; none where there is no fold.

    Raises OSError where the fold cannot be read: to pass it over would compute all of its shards
    again, and to write it anew would lose them.
    """
    path = storage.join(root, layout.ledger_fold(stage))
    try:
        data = storage.read_bytes(path)
    except FileNotFoundError:
        return []
    except OSError:
        if not storage.is_local(path) and not storage.exists(path):
            return []
        raise
    return [_parsed(path, stage, text) for text in data.split(b"\n") if text]


def _parsed(path: str, stage: str, text: bytes) -> LedgerLine:
    seal, _, rest = text.partition(b" ")
    shard = rest.partition(b" ")[0].decode(errors="replace")
    try:
        if seal.decode() != storage.digest(rest):
            raise ValueError("its seal does not fit: it is damaged")
        _, believed, record = rest.split(b" ", 2)
        entry = LedgerEntry.from_record(json.loads(record))
        if (entry.stage, entry.shard) != (stage, shard):
            raise ValueError(f"it speaks of {layout.ledger_entry(entry.stage, entry.shard)}")
        return LedgerLine(path, shard, entry, "", text, float(believed))
    except (ValueError, RecursionError) as error:
        return LedgerLine(path, shard, None, f"a line of it: {error}", text)


def folded(entry: LedgerEntry, believed: float) -> bytes:
    """An entry as a line of a fold."""
    record = json.dumps(entry.record(), separators=(",", ":")).encode()
    rest = b" ".join([entry.shard.encode(), repr(believed).encode(), record])
    return b" ".join([storage.digest(rest).encode(), rest])


def write_fold(root: str, stage: str, lines: Mapping[str, bytes]) -> None:
    """Put lines (by shard) in place of a stage's fold."""
    data = b"".join(text + b"\n" for _, text in sorted(lines.items()))
    storage.write_atomic(storage.join(root, layout.ledger_fold(stage)), data)


def delete_lines(root: str, stage: str, shards: Collection[str]) -> None:
    """Take shards out of a stage's ledger, wherever their lines stand; unknown ones are passed.

    Out of the fold first: a line of its own that is left is taken out by the next run.
    """
    lines = read_fold(root, stage)
    kept = [line for line in lines if line.shard not in shards]
    if len(kept) < len(lines):
        write_fold(root, stage, by_shard(kept))
    for shard in filter(is_plain_path, sorted(shards)):
        storage.delete(storage.join(root, layout.ledger_entry(stage, shard)))


def by_shard(lines: Iterable[LedgerLine]) -> dict[str, bytes]:
    """The text of each line by its shard. A damaged line may state the name of another: a sound
    one counts in its place."""
    ordered = sorted(lines, key=lambda line: line.entry is not None)
    return {line.shard: line.text for line in ordered}
