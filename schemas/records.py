"""Records that pass between the stages: tasks, and the ledger's entries for committed shards."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import sys
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
    """Return `path` if it is plain: relative, of names that `/` separates, of which none is hidden
    or has characters other than ASCII letters, digits and `_.=+-`.

    An atlas may come from an untrusted source, so no path in it may lead out of its folder. Raises
    ValueError for any other path.
    """
    if not is_plain_path(path):
        raise ValueError(f"{path!r} is not the plain name of a file in an atlas")
    return str(path)


def is_plain_path(path: object) -> bool:
    return isinstance(path, str) and all(map(_NAME.fullmatch, path.split("/")))


def plain_name(name: object) -> str:
    """Return `name` if it is a plain path of one part; raises ValueError for any other."""
    if "/" in plain_path(name):
        raise ValueError(f"{name!r} is a path, not a name")
    return str(name)


def sealed(record: Mapping[str, Any]) -> bytes:
    """A record as JSON with a digest of its content, by which `unsealed` detects any change."""
    return (json.dumps({**record, _SEAL: _seal_of(record)}, indent=1) + "\n").encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """A record that `sealed` wrote, without its digest; ValueError where it was changed since."""
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


def _shared(inputs: Any) -> Any:
    """The same mapping, its words held once for all entries: a shard is an input of all around."""
    if not _is_mapping(inputs, str):
        return inputs  # from_record refuses it
    return {sys.intern(key): sys.intern(value) for key, value in inputs.items()}


def _is_mapping(value: object, kind: type) -> bool:
    return isinstance(value, dict) and all(
        isinstance(part, kind) and not isinstance(part, bool) for part in value.values()
    )


@dataclass(frozen=True)
class LedgerEntry:
    """A committed shard: what it was made from, and its files.

    `fingerprint` covers the stage's settings; `inputs` names every committed shard that was read,
    with its identity at that time. The entry is valid as long as both are unchanged. `content` is
    the identity that later stages depend on, usually the file's digest. `parts` are identities of
    parts of the content, for stages that read only these: a changed sequence number does not cause
    descriptors to be computed again.
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
        """The identity of a part, or `content` where no part is named or the entry lacks it, as
        entries of older versions do."""
        return self.parts.get(part, self.content) if part else self.content

    @property
    def file(self) -> FileRef:
        """The shard's main file."""
        return self.files[0]

    def record(self) -> dict[str, Any]:
        """The entry as JSON's types."""
        main, *others = self.files
        return {
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

    def to_json(self) -> bytes:
        return sealed(self.record())

    @staticmethod
    def from_json(data: bytes) -> LedgerEntry:
        """Raises ValueError where the bytes are not a ledger entry, whole and with plain names."""
        return LedgerEntry.from_record(unsealed(data))

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> LedgerEntry:
        """The inverse of `record`. Raises ValueError for what is none."""
        try:
            main = FileRef(record["file"], record["rows"], record["bytes"], record["digest"])
            entry = LedgerEntry(
                stage=plain_name(record["stage"]),
                shard=plain_name(record["shard"]),
                fingerprint=record["fingerprint"],
                inputs=_shared(record["inputs"]),
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


_TASK_NAMES = ("shard", "cell", "output", "fingerprint")
_TASK_PAIRS = ("reads", "inputs", "digests")


@dataclass(frozen=True, order=True)
class Task:
    """One shard of work as it passes through Beam: names and settings, never data.

    `reads` has (role, path) of every file that the task reads. The role is the name of the table
    (`images`, `descriptors`, ...); several files may have the same role. Paths are relative to the
    atlas. `inputs` is copied into the ledger entry; `output` is the path of the main file.
    `digests` has (path, digest) of the files read, as far as the ledger had them when the task was
    made. `stored` says where the task lies in a file (atlas.task_files), if it was read from one.
    """

    shard: str
    cell: str
    output: str
    fingerprint: str
    reads: tuple[tuple[str, str], ...] = ()
    inputs: tuple[tuple[str, str], ...] = ()
    digests: tuple[tuple[str, str], ...] = ()
    stored: tuple[str, str, int, int, str] | None = field(default=None, compare=False)

    def record(self) -> dict[str, Any]:
        """The task as JSON's types."""
        return {name: getattr(self, name) for name in (*_TASK_NAMES, *_TASK_PAIRS)}

    @staticmethod
    def from_record(
        record: Mapping[str, Any], stored: tuple[str, str, int, int, str] | None = None
    ) -> Task:
        """The inverse of `record`."""
        names = {name: record[name] for name in _TASK_NAMES}
        pairs: dict[str, Any] = {
            name: tuple((a, b) for a, b in record[name]) for name in _TASK_PAIRS
        }
        return Task(**names, **pairs, stored=stored)

    @functools.cached_property
    def digest_of(self) -> Mapping[str, str]:
        """`digests` by path."""
        return dict(self.digests)

    def paths(self, role: str) -> list[str]:
        """Paths of the files with the role `role`, in the order of `reads`; empty for none."""
        return [path for name, path in self.reads if name == role]

    def path(self, role: str) -> str:
        """Path of the one file with the role `role`; ValueError where there is none, or several."""
        (path,) = self.paths(role)
        return path


def shard_cell(shard: str) -> str:
    """Cell of a shard by its name, `g<generation>-<block>-<cell>-<piece>`."""
    parts = shard.split("-")
    if len(parts) != 4:
        raise UserError(f"{shard!r} is not the name of a shard")
    return parts[2]
