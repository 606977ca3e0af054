"""Reading the ledger: the entries of a stage whose files are there as they were committed."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from vladmap.atlas import layout, listings, storage
from vladmap.atlas.ledger_folds import (
    FOLD_FROM,
    LedgerLine,
    by_shard,
    folded,
    read_fold,
    read_line,
    write_fold,
)
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


_Checked = tuple[LedgerLine, LedgerEntry | LostLine, float]
"""A line, what came of it, and when its files last changed."""


def _last_change(
    checked: LedgerEntry | LostLine,
    states: Mapping[str, storage.FileState],
    places: Mapping[str, str],
) -> float:
    if isinstance(checked, LostLine):
        return 0.0
    return max(states[places[file.path]].changed for file in checked.files)


@dataclass
class LedgerReader:
    """The ledger of the atlas at `root`. `entries` remembers.

    With `doubted` every file's digest is read before the file is believed. `lost` has the lines
    that do not hold, by stage and shard. With `renewing` a line whose files were read again is
    touched (or its fold written anew), so that they need not be read once more; only who holds the
    atlas's lock may.
    """

    root: str
    doubted: bool = False
    renewing: bool = False
    lost: dict[str, dict[str, LostLine]] = field(default_factory=dict)
    _entries: dict[str, dict[str, LedgerEntry]] = field(default_factory=dict)
    _verified: dict[str, storage.FileState] = field(default_factory=dict)
    _reported: set[tuple[str, str]] = field(default_factory=set)
    _folds: dict[str, tuple[storage.FileState, dict[str, LedgerLine]]] = field(default_factory=dict)

    def stages(self) -> list[str]:
        """All stages that have a folder in the ledger."""
        return listings.list_folders(self._join(layout.LEDGER))

    def lines(self, stage: str) -> list[LedgerLine]:
        """Every line of a stage as it stands, one a shard; no other file is looked at.

        Raises OSError where the stage's fold cannot be read. Lines of their own are read before the
        fold: one that is folded meanwhile is seen in it.
        """
        paths = listings.list_files(self._join(layout.ledger_folder(stage)), ".json")
        with ThreadPoolExecutor(16) as pool:
            own = {line.shard: line for line in pool.map(read_line, paths)}
        lines = {line.shard: line for line in read_fold(self.root, stage)}
        for shard, line in own.items():
            if line.entry is not None or shard not in lines or storage.exists(line.path):
                lines[shard] = line
        return [lines[shard] for shard in sorted(lines)]

    def line(self, stage: str, shard: str) -> LedgerLine:
        """The line of one shard as it stands; without an entry where there is none."""
        own = read_line(self._join(layout.ledger_entry(stage, shard)))
        if own.entry is not None or storage.exists(own.path):
            return own
        path = self._join(layout.ledger_fold(stage))
        state = storage.states([path]).get(path)
        if state is None:
            return own
        if stage not in self._folds or self._folds[stage][0] != state:
            lines = {line.shard: line for line in read_fold(self.root, stage)}
            self._folds[stage] = (state, lines)
        return self._folds[stage][1].get(shard, own)

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
        checked = self._checked(stage)
        lost = {one.shard: one for _, one, _ in checked if isinstance(one, LostLine)}
        self._report(stage, lost)
        self.lost[stage] = lost
        if self.renewing and any(
            line.believed is not None and line.believed < believed for line, _, believed in checked
        ):
            self._write_fold(stage, [each for each in checked if each[0].text])
        return {one.shard: one for _, one, _ in checked if isinstance(one, LedgerEntry)}

    def _checked(self, stage: str) -> list[_Checked]:
        """Each line of a stage, compared with its files; by shard."""
        lines = self.lines(stage)
        files = [file.path for line in lines if line.entry for file in line.entry.files]
        places = storage.join_all(self.root, files)
        states = storage.states([*(line.path for line in lines), *places.values()])
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            outcomes = list(pool.map(lambda line: self.check(states, line, places=places), lines))
        return [
            (line, one, _last_change(one, states, places))
            for line, one in zip(lines, outcomes, strict=True)
        ]

    def fold(self, stage: str, least: int = FOLD_FROM) -> None:
        """Take a stage's lines into its fold where at least so many stand alone.

        Only who holds the atlas's lock may. A line whose files do not hold stays where it is.
        """
        alone = listings.list_files(self._join(layout.ledger_folder(stage)), ".json")
        if len(alone) < least:
            return
        checked = self._checked(stage)
        taken = [
            (line, one, believed)
            for line, one, believed in checked
            if line.text or isinstance(one, LedgerEntry)
        ]
        self._write_fold(stage, taken)
        for line, _, _ in taken:
            if not line.text:
                storage.delete(line.path)

    def _write_fold(self, stage: str, checked: Sequence[_Checked]) -> None:
        lines = by_shard(line for line, one, _ in checked if isinstance(one, LostLine))
        lines |= {
            one.shard: folded(one, believed)
            for _, one, believed in checked
            if isinstance(one, LedgerEntry)
        }
        write_fold(self.root, stage, lines)

    def check(
        self,
        states: Mapping[str, storage.FileState],
        line: LedgerLine,
        files: Sequence[FileRef] | None = None,
        places: Mapping[str, str] | None = None,
    ) -> LedgerEntry | LostLine:
        """The entry of a line if its files are as committed; `states` has the state of each.

        With `files` only these are looked at. `places` are those of files that are known (join).

        Digests are computed for files that changed after the entry was written, and for all files
        if the atlas is doubted: a file that was not changed since is as it was.
        """
        entry = line.entry
        if entry is None:
            return LostLine(line.shard, line.path, line.why, None)
        written = line.believed
        if written is None and line.path in states:
            written = states[line.path].changed
        touched = False
        for file in entry.files if files is None else files:
            path = (places or {}).get(file.path) or self._join(file.path)
            state = states.get(path)
            if state is None:
                return LostLine(entry.shard, path, "it is missing", entry)
            if state.bytes != file.bytes:
                why = f"it has {state.bytes} bytes, {file.bytes} were committed"
                return LostLine(entry.shard, path, why, entry)
            late = written is None or state.changed > written
            touched = touched or late
            if (late or self.doubted) and self._verified.get(path) != state:
                try:
                    digest = storage.file_digest(path)
                except OSError as error:
                    return LostLine(entry.shard, path, error.strerror or str(error), entry)
                if digest != file.digest:
                    return LostLine(entry.shard, path, "its bytes are not those committed", entry)
                self._verified[path] = state
        if touched and self.renewing and line.believed is None:
            with contextlib.suppress(OSError):
                storage.touch(line.path)
        return entry

    def _join(self, path: str) -> str:
        return storage.join(self.root, path)

    def _report(self, stage: str, lost: Mapping[str, LostLine]) -> None:
        new = [line for line in lost.values() if (line.path, line.why) not in self._reported]
        self._reported |= {(line.path, line.why) for line in new}
        for line in new[:_SHOWN]:
            log.warning("%s: %s; it counts as missing", line.path, line.why)
        if len(new) > _SHOWN:
            folder = self._join(layout.ledger_folder(stage))
            log.warning("%s: and %d more", folder, len(new) - _SHOWN)
