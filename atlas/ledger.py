"""Reading the ledger: the entries of a stage whose files are there as they were committed."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from vladmap.atlas import layout, storage
from vladmap.schemas.records import FileRef, LedgerEntry

log = logging.getLogger("vladmap")

_SHOWN = 3


class LostLine(NamedTuple):
    """A shard whose ledger entry is invalid: the file that causes it, and the reason.

    `entry` is None if the entry itself cannot be read.
    """

    shard: str
    path: str
    why: str
    entry: LedgerEntry | None


class LedgerLine(NamedTuple):
    """A file of the ledger: the entry in it, or None and the reason."""

    path: str
    entry: LedgerEntry | None
    why: str


@dataclass
class LedgerReader:
    """The ledger of the atlas at `root`. All methods but `stages` and `lines` cache what they read.

    If `doubted`, the digest of every file is computed before its entry is taken as valid. `lost`
    has the invalid entries, by stage and shard. If `renewing`, the time of an entry whose files
    were read again is set to now, so that they need not be read once more; that requires the
    atlas's lock.
    """

    root: str
    doubted: bool = False
    renewing: bool = False
    lost: dict[str, dict[str, LostLine]] = field(default_factory=dict)
    _entries: dict[str, dict[str, LedgerEntry]] = field(default_factory=dict)
    _verified: dict[str, storage.FileState] = field(default_factory=dict)
    _reported: set[tuple[str, str]] = field(default_factory=set)

    def stages(self) -> list[str]:
        """All stages that have a folder in the ledger."""
        return storage.list_folders(storage.join(self.root, layout.LEDGER))

    def lines(self, stage: str) -> list[LedgerLine]:
        """Every entry of a stage as it is in the ledger; the files it lists are not checked."""
        folder = storage.join(self.root, layout.ledger_folder(stage))
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(read_line, storage.list_files(folder, ".json")))

    def entries(self, stage: str, *, refresh: bool = False) -> dict[str, LedgerEntry]:
        """The valid entries of a stage by shard: those whose files are as they were committed.

        An invalid entry counts as absent, is logged, and is put into `lost`: its shard is computed
        again.
        """
        if refresh or stage not in self._entries:
            self._entries[stage] = self._read(stage)
        return self._entries[stage]

    def digests(self) -> dict[str, str]:
        """Digest of every committed file of the stages that were read so far, by path."""
        return {
            file.path: file.digest
            for entries in self._entries.values()
            for entry in entries.values()
            for file in entry.files
        }

    def verify_again(self) -> bool:
        """Compute every digest again; returns whether an entry that was valid before is invalid."""
        before, stages = len(self._reported), sorted(self._entries)
        self._verified.clear()
        self.doubted = True
        for stage in stages:
            self.entries(stage, refresh=True)
        self.doubted = False
        return len(self._reported) > before

    def _read(self, stage: str) -> dict[str, LedgerEntry]:
        lines = self.lines(stage)
        files = [file.path for line in lines if line.entry for file in line.entry.files]
        places = [storage.join(self.root, path) for path in files]
        states = storage.states([*(line.path for line in lines), *places])
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            checked = list(pool.map(lambda line: self.check(states, line), lines))
        lost = {line.shard: line for line in checked if isinstance(line, LostLine)}
        self._report(stage, lost)
        self.lost[stage] = lost
        entries = [entry for entry in checked if isinstance(entry, LedgerEntry)]
        return {entry.shard: entry for entry in sorted(entries, key=lambda entry: entry.shard)}

    def check(
        self,
        states: Mapping[str, storage.FileState],
        line: LedgerLine,
        files: Sequence[FileRef] | None = None,
    ) -> LedgerEntry | LostLine:
        """The entry of a line if its files are as committed; `states` has the state of each.

        With `files` only these are checked.

        Digests are computed for files that changed after the entry was written, and for all files
        if the atlas is doubted: a file that was not changed since is as it was.
        """
        entry = line.entry
        if entry is None:
            return LostLine(
                line.path.rpartition("/")[2].removesuffix(".json"), line.path, line.why, None
            )
        written = states.get(line.path)
        touched = False
        for file in entry.files if files is None else files:
            path = storage.join(self.root, file.path)
            state = states.get(path)
            if state is None:
                return LostLine(entry.shard, path, "it is missing", entry)
            if state.bytes != file.bytes:
                why = f"it has {state.bytes} bytes, {file.bytes} were committed"
                return LostLine(entry.shard, path, why, entry)
            late = written is None or state.changed > written.changed
            touched = touched or late
            if (late or self.doubted) and self._verified.get(path) != state:
                try:
                    digest = storage.file_digest(path)
                except OSError as error:
                    return LostLine(entry.shard, path, error.strerror or str(error), entry)
                if digest != file.digest:
                    return LostLine(entry.shard, path, "its bytes are not those committed", entry)
                self._verified[path] = state
        if touched and self.renewing:
            with contextlib.suppress(OSError):
                storage.touch(line.path)
        return entry

    def _report(self, stage: str, lost: Mapping[str, LostLine]) -> None:
        new = [line for line in lost.values() if (line.path, line.why) not in self._reported]
        self._reported |= {(line.path, line.why) for line in new}
        for line in new[:_SHOWN]:
            log.warning("%s: %s; it counts as missing", line.path, line.why)
        if len(new) > _SHOWN:
            folder = storage.join(self.root, layout.ledger_folder(stage))
            log.warning("%s: and %d more", folder, len(new) - _SHOWN)


def read_line(path: str) -> LedgerLine:
    """Read one file of the ledger. An entry of another stage or shard is invalid."""
    try:
        entry = LedgerEntry.from_json(storage.read_bytes(path))
    except OSError as error:
        return LedgerLine(path, None, error.strerror or str(error))
    except ValueError as error:
        return LedgerLine(path, None, str(error))
    place = layout.ledger_entry(entry.stage, entry.shard)
    if not path.endswith(f"/{place}"):
        return LedgerLine(path, None, f"it speaks of {place}")
    return LedgerLine(path, entry, "")
