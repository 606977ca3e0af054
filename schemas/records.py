"""Records that travel between the stages: what a shard is, and what the ledger says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from schemas.rejects import UserError

NO_CELL = "none"


@dataclass(frozen=True)
class FileRef:
    """One committed file. `path` is relative to the atlas, `digest` BLAKE2b-128 of its bytes."""

    path: str
    rows: int
    bytes: int
    digest: str


@dataclass(frozen=True)
class LedgerEntry:
    """A shard that is done: what it was made from, and what it became.

    `fingerprint` covers the stage's configuration; `inputs` names every committed thing that was
    read, with the identity it had then. An entry holds as long as both still agree. `content` is
    the identity that later stages depend on, for most the file's digest. `parts` are identities of
    parts of it, for stages that depend on no more: a changed sequence number recomputes no
    descriptor.
    """

    stage: str
    shard: str
    fingerprint: str
    inputs: Mapping[str, str]
    files: tuple[FileRef, ...]
    content: str
    counts: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)

    def identity(self, part: str = "") -> str:
        """`content`, or the identity of a part; an older entry has none of its parts."""
        return self.parts.get(part, self.content) if part else self.content

    @property
    def file(self) -> FileRef:
        """The shard's main file."""
        return self.files[0]

    def to_json(self) -> bytes:
        main, *others = self.files
        record = {
            "stage": self.stage,
            "shard": self.shard,
            "fingerprint": self.fingerprint,
            "inputs": dict(sorted(self.inputs.items())),
            "file": main.path,
            "rows": main.rows,
            "bytes": main.bytes,
            "digest": main.digest,
            "others": [asdict(other) for other in others],
            "content": self.content,
            "counts": dict(sorted(self.counts.items())),
            "parts": dict(sorted(self.parts.items())),
        }
        return (json.dumps(record, indent=1) + "\n").encode()

    @staticmethod
    def from_json(data: bytes) -> LedgerEntry:
        """Raises ValueError where the bytes are not a ledger entry."""
        try:
            record = json.loads(data)
            main = FileRef(record["file"], record["rows"], record["bytes"], record["digest"])
            return LedgerEntry(
                stage=record["stage"],
                shard=record["shard"],
                fingerprint=record["fingerprint"],
                inputs=record["inputs"],
                files=(main, *(FileRef(**other) for other in record["others"])),
                content=record["content"],
                counts=record["counts"],
                parts=record.get("parts", {}),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a ledger entry: {error}") from error


@dataclass(frozen=True, order=True)
class Task:
    """One shard of work, as it travels through Beam: names and settings, never data.

    `reads` maps a role (`images`, `descriptors/<shard>`, ...) to a path relative to the atlas;
    `inputs` goes into the ledger as it stands, `output` is the main file's path.
    """

    shard: str
    cell: str
    output: str
    fingerprint: str
    reads: tuple[tuple[str, str], ...] = ()
    inputs: tuple[tuple[str, str], ...] = ()

    def read(self, role: str) -> str:
        """Path of the file that plays `role`; KeyError where there is none."""
        return dict(self.reads)[role]


def shard_cell(shard: str) -> str:
    """Cell of a shard by its name, `g<generation>-<block>-<cell>-<piece>`."""
    parts = shard.split("-")
    if len(parts) != 4:
        raise UserError(f"{shard!r} is not the name of a shard")
    return parts[2]
