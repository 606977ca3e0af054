"""Records that travel between the stages: what a shard is, and what the ledger says of it."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from vladmap.schemas.rejects import UserError

NO_CELL = "none"
"""The cell of images without a position."""

_NAME = re.compile(r"(?!\.)[A-Za-z0-9_.=+-]+")
_DIGEST = re.compile(r"[0-9a-f]{32}")
_SEAL = "seal"


def plain_path(path: object) -> str:
    """The same path, if it is a plain one: relative, `/` between names, no name hidden or odd.

    An atlas is data that may come from anybody: no name in it leads out of its folder. Raises
    ValueError for any other path.
    """
    if not is_plain_path(path):
        raise ValueError(f"{path!r} is not the plain name of a file in an atlas")
    return str(path)


def is_plain_path(path: object) -> bool:
    return isinstance(path, str) and all(map(_NAME.fullmatch, path.split("/")))


def plain_name(name: object) -> str:
    """The same name, if it is a plain_path of one part. Raises ValueError for any other."""
    if "/" in plain_path(name):
        raise ValueError(f"{name!r} is a path, not a name")
    return str(name)


def sealed(record: Mapping[str, Any]) -> bytes:
    """A record as JSON with a digest of itself, so that a changed digit does not go unseen."""
    return (json.dumps({**record, _SEAL: _seal_of(record)}, indent=1) + "\n").encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """A record that `sealed` wrote, without its seal; ValueError where it is not as written."""
    try:
        record = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    seal = record.pop(_SEAL, None)
    if seal is None:
        raise ValueError("it has no seal: another version wrote it, or it is damaged")
    if seal != _seal_of(record):
        raise ValueError("its seal does not fit: it is damaged")
    return record


def _seal_of(record: Mapping[str, Any]) -> str:
    data = json.dumps(record, sort_keys=True).encode()
    return hashlib.blake2b(data, digest_size=16).hexdigest()


@dataclass(frozen=True)
class FileRef:
    """One committed file. `path` is relative to the atlas, `digest` BLAKE2b-128 of its bytes.

    Raises ValueError for values that cannot be those of a file in an atlas.
    """

    path: str
    rows: int
    bytes: int
    digest: str

    def __post_init__(self) -> None:
        plain_path(self.path)
        if not (_is_count(self.rows) and _is_count(self.bytes)):
            raise ValueError(f"{self.path}: rows and bytes are counts")
        if not isinstance(self.digest, str) or not _DIGEST.fullmatch(self.digest):
            raise ValueError(f"{self.path}: {self.digest!r} is no digest")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_mapping(value: object, kind: type) -> bool:
    return isinstance(value, dict) and all(
        isinstance(part, kind) and not isinstance(part, bool) for part in value.values()
    )


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
        return sealed(record)

    @staticmethod
    def from_json(data: bytes) -> LedgerEntry:
        """Raises ValueError where the bytes are not a ledger entry, whole and with plain names."""
        record = unsealed(data)
        try:
            main = FileRef(record["file"], record["rows"], record["bytes"], record["digest"])
            entry = LedgerEntry(
                stage=plain_name(record["stage"]),
                shard=plain_name(record["shard"]),
                fingerprint=record["fingerprint"],
                inputs=record["inputs"],
                files=(main, *(FileRef(**other) for other in record["others"])),
                content=record["content"],
                counts=record["counts"],
                parts=record.get("parts", {}),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a ledger entry: {error}") from error
        if not (
            isinstance(entry.fingerprint, str)
            and isinstance(entry.content, str)
            and _is_mapping(entry.inputs, str)
            and _is_mapping(entry.counts, int)
            and _is_mapping(entry.parts, str)
        ):
            raise ValueError("not a ledger entry: a value of another type")
        return entry


@dataclass(frozen=True, order=True)
class Task:
    """One shard of work, as it travels through Beam: names and settings, never data.

    `reads` has (role, path) of every file that the work opens: the role is the name of the table
    (`images`, `descriptors`, ...), which several files may play; paths are relative to the atlas.
    `inputs` goes into the ledger as it stands, `output` is the main file's path. `digests` are
    those of the files read that the ledger knew when the task was made, by path.
    """

    shard: str
    cell: str
    output: str
    fingerprint: str
    reads: tuple[tuple[str, str], ...] = ()
    inputs: tuple[tuple[str, str], ...] = ()
    digests: tuple[tuple[str, str], ...] = ()

    @functools.cached_property
    def digest_of(self) -> Mapping[str, str]:
        """`digests` by path."""
        return dict(self.digests)

    def paths(self, role: str) -> list[str]:
        """Paths of the files that play `role`, in the order of `reads`; empty where none does."""
        return [path for name, path in self.reads if name == role]

    def path(self, role: str) -> str:
        """Path of the one file that plays `role`; ValueError where there is none, or several."""
        (path,) = self.paths(role)
        return path


def shard_cell(shard: str) -> str:
    """Cell of a shard by its name, `g<generation>-<block>-<cell>-<piece>`."""
    parts = shard.split("-")
    if len(parts) != 4:
        raise UserError(f"{shard!r} is not the name of a shard")
    return parts[2]
