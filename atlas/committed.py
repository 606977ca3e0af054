"""Reading committed files of an atlas that may be a copy, damaged, or written at this moment."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa

from vladmap.atlas import layout, listings, storage
from vladmap.atlas.errors import DamagedAtlas, NotInAtlas
from vladmap.atlas.ledger import LedgerReader, LostLine
from vladmap.atlas.ledger_folds import LedgerLine
from vladmap.schemas.records import FileRef, LedgerEntry
from vladmap.schemas.rejects import UserError

_TRIES = 5
_PAUSE_S = 0.2


class CommittedFiles:
    """The committed files of the atlas at `root`, by its ledger at the time of each call.

    Each file is compared with the ledger before it is read: always its size; its digest if it
    changed after its entry was written, or if the atlas is a copy. If a build replaces a shard at
    this moment, reading waits for the new entry. Nothing is written. Raises DamagedAtlas.
    """

    def __init__(self, root: str, ledger: LedgerReader) -> None:
        self.root = root
        self._ledger = ledger

    def stages(self) -> list[str]:
        """All names of ledgers in the atlas."""
        return self._ledger.stages()

    def has_entries(self, stage: str) -> bool:
        """Whether a stage has any entry; none is read."""
        alone = listings.list_files(self._join(layout.ledger_folder(stage)), ".json")
        return bool(alone) or storage.exists(self._join(layout.ledger_fold(stage)))

    def entries(self, stage: str) -> dict[str, LedgerEntry]:
        """The ledger's entries of a stage by shard, sorted; empty where there is none."""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE_S)
            lines = self._lines(stage)
            unreadable = [line for line in lines if line.entry is None]
            if not unreadable:
                break
        else:
            raise _damaged(unreadable[0].path, unreadable[0].why)
        entries = [line.entry for line in lines if line.entry is not None]
        return {entry.shard: entry for entry in sorted(entries, key=lambda entry: entry.shard)}

    def files(self, stage: str, folder: str) -> list[tuple[str, FileRef]]:
        """(shard, file) of a stage's files below a folder at the top, or of that name, by shard."""
        return [
            (shard, file)
            for shard, entry in self.entries(stage).items()
            for file in entry.files
            if layout.top(file.path) == folder
        ]

    def table(
        self,
        stage: str,
        shard: str,
        path: str,
        columns: Sequence[str] | None = None,
        optional: Collection[str] = (),
    ) -> pa.Table:
        """A committed table, with `columns` in their order; those of `optional` may be missing.

        Raises NotInAtlas for any other column that is not there.
        """
        place = self.checked(stage, shard, path)
        try:
            if columns is not None:
                known = storage.read_schema(place).names
                columns = [name for name in columns if name in known or name not in optional]
                if unknown := [name for name in columns if name not in known]:
                    raise NotInAtlas(
                        f"{place} has no column {', '.join(unknown)}: it has {', '.join(known)}"
                    )
            return storage.read_table(place, None if columns is None else list(columns))
        except OSError as error:
            raise _damaged(place, str(error)) from error

    def tables(
        self,
        stage: str,
        folder: str,
        columns: Sequence[str] | None = None,
        optional: Collection[str] = (),
    ) -> Iterator[pa.Table]:
        """The committed tables of a stage in a folder at the top, shard by shard; see `table`."""
        for shard, file in self.files(stage, folder):
            yield self.table(stage, shard, file.path, columns, optional)

    def data(self, stage: str, shard: str, path: str) -> bytes:
        """All bytes of a committed file."""
        place = self.checked(stage, shard, path)
        try:
            return storage.read_bytes(place)
        except OSError as error:
            raise _damaged(place, str(error)) from error

    def checked(self, stage: str, shard: str, path: str) -> str:
        """The place of a committed file that is what the ledger says now."""
        why, place = "", self._join(path)
        for attempt in range(_TRIES):
            if attempt:  # a build may have written a file and not yet its entry
                time.sleep(_PAUSE_S)
            line = self._line(stage, shard)
            if line.entry is None:
                why, place = line.why, line.path
                continue
            files = tuple(file for file in line.entry.files if file.path == path)
            if not files:
                why = "the ledger does not know it any more: it was made anew under another name"
                continue
            outcome = self._compared(line, files)
            if not isinstance(outcome, LostLine):
                return self._join(path)
            why, place = outcome.why, outcome.path
        raise _damaged(place, why)

    def _compared(self, line: LedgerLine, files: tuple[FileRef, ...]) -> LedgerEntry | LostLine:
        states = storage.states([line.path, *(self._join(file.path) for file in files)])
        return self._ledger.check(states, line, files)

    def _lines(self, stage: str) -> list[LedgerLine]:
        try:
            return self._ledger.lines(stage)
        except UserError as error:
            raise DamagedAtlas(str(error)) from error

    def _line(self, stage: str, shard: str) -> LedgerLine:
        try:
            return self._ledger.line(stage, shard)
        except UserError as error:
            raise DamagedAtlas(str(error)) from error

    def _join(self, path: str) -> str:
        try:
            return storage.join(self.root, path)
        except UserError as error:
            raise DamagedAtlas(str(error)) from error


def _damaged(path: str, why: str) -> DamagedAtlas:
    message = why if path in why else f"{path}: {why}"
    return DamagedAtlas(f"{message}: run the same `vladmap build` again, it makes it anew")
