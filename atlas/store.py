"""The atlas that a run writes: its manifest and ledger, and deleting what is invalid."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from vladmap.atlas import layout, listings, storage
from vladmap.atlas.ledger import LedgerReader, LostLine
from vladmap.atlas.ledger_folds import delete_lines
from vladmap.atlas.lock import exclusive
from vladmap.atlas.manifest import read_manifest, restored_manifest, software_versions
from vladmap.schemas import SCHEMA_VERSION
from vladmap.schemas.records import LedgerEntry, sealed
from vladmap.schemas.rejects import UserError

log = logging.getLogger("vladmap")

_DATA = (
    layout.IMAGES,
    layout.REJECTS,
    layout.DESCRIPTORS,
    layout.PATCHES,
    layout.FEATURES,
    layout.PAIRS,
    layout.TWO_VIEWS,
    layout.INDEX,
    layout.TILES,
    layout.MODEL,
    layout.WORK,
)
_ENDINGS = (".parquet", ".bin", ".json", ".faiss", ".safetensors", ".checkpoint")
_UNLEDGERED = re.compile(
    r"atlas\.json|ledger/.*|work/\w+\.(json|parquet)|work/(tiles|vocabulary|organise|shards)/[^/]*\.parquet"
)
"""Files that stages write without entering them in the ledger."""


@dataclass
class AtlasStore:
    """One atlas on any of Beam's filesystems. Paths inside it are relative to `root`.

    `restored` is the reason if the manifest could not be read and was restored from the ledger.
    """

    root: str
    manifest: dict[str, Any] = field(default_factory=dict)
    restored: str = ""
    reader: LedgerReader = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.reader = LedgerReader(self.root)

    @staticmethod
    def open(root: str, *, create: bool, write: bool = True) -> AtlasStore:
        """Open an atlas, or begin one with `create`; without `write` nothing is put on disk.

        Raises UserError where the folder cannot be used: not there, not an atlas, not writable, or
        written by a newer vladmap.
        """
        root = os.path.abspath(root) if storage.is_local(root) else root.rstrip("/")
        atlas = AtlasStore(root)
        if storage.exists(atlas.path(layout.MANIFEST)):
            atlas._read_manifest()
        elif atlas.stage_names():
            atlas._restore("it is missing")
        elif not create:
            raise UserError(
                f"{root} is not an atlas (it has no atlas.json): "
                "make one with `vladmap build --images DIR --atlas DIR`"
            )
        elif (
            storage.is_local(root) and os.path.isdir(root) and any(map(_visible, os.listdir(root)))
        ):
            raise UserError(f"{root} holds other files and is no atlas: choose a new folder")
        if create and write:
            atlas._begin()
        return atlas

    def path(self, *parts: str) -> str:
        """The path of a file of this atlas (storage.join)."""
        return storage.join(self.root, *parts)

    @property
    def doubted(self) -> bool:
        """Whether the digest of every file is computed before its entry is taken as valid."""
        return self.reader.doubted

    @doubted.setter
    def doubted(self, doubted: bool) -> None:
        self.reader.doubted = doubted

    @property
    def lost(self) -> dict[str, dict[str, LostLine]]:
        """The invalid entries of the ledger, by stage and shard."""
        return self.reader.lost

    def _read_manifest(self) -> None:
        try:
            self.manifest = read_manifest(self.root)
        except OSError as error:
            self._restore(error.strerror or str(error))
        except ValueError as error:
            self._restore(str(error))
        else:
            self.doubted = self.manifest.get("place") != self._place()

    def _restore(self, why: str) -> None:
        log.warning("%s: %s; it is made anew from the ledger", self.path(layout.MANIFEST), why)
        self.doubted, self.restored = True, why
        self.manifest = restored_manifest(self.root, self.reader)

    def _place(self) -> str:
        """An identity of a local atlas's folder, which a copy does not have; empty if remote."""
        try:
            return str(os.stat(self.root).st_ino) if storage.is_local(self.root) else ""
        except FileNotFoundError:
            return ""

    def stage_names(self) -> list[str]:
        """All stages that have a folder in the ledger."""
        return self.reader.stages()

    def ledger(self, stage: str, *, refresh: bool = False) -> dict[str, LedgerEntry]:
        """The valid entries of a stage by shard (see LedgerReader.entries)."""
        return self.reader.entries(stage, refresh=refresh)

    def image_shards(self) -> dict[str, LedgerEntry]:
        """Committed shards of `images/`, in the order in which the collection grew.

        The ledger of ingest has entries of rejects beside them.
        """
        return {
            shard: entry
            for shard, entry in sorted(self.ledger(layout.INGEST_LEDGER).items())
            if layout.top(entry.file.path) == layout.IMAGES
        }

    def digests(self) -> dict[str, str]:
        """Digest of every committed file of the stages that were asked for so far, by path."""
        return self.reader.digests()

    def content(self, key: str) -> str | None:
        """The current identity of `<stage>/<shard>`, or of its `:<part>`, for later stages."""
        stage, _, shard = key.rpartition("/")
        shard, _, part = shard.partition(":")
        entry = self.ledger(stage).get(shard)
        return entry.identity(part) if entry else None

    def check_all(self) -> None:
        """Compute the digests of all files if the atlas is doubted: a copy, or damaged before.

        Valid entries then count as valid until their files change.
        """
        if self.doubted:
            log.info("%s is a copy, or was damaged: every digest is read", self.root)
            for stage in self.stage_names():
                self.ledger(stage)
            self.doubted = False

    def doubt(self) -> bool:
        """Compute every digest again; returns whether an entry that was valid before is invalid."""
        return self.reader.verify_again()

    def require(self, stages: Iterable[str]) -> None:
        """Raises UserError if an entry of one of these stages is invalid."""
        for stage in stages:
            self.ledger(stage)
            for line in self.lost[stage].values():
                raise UserError(
                    f"{line.path}: {line.why}: run the same `vladmap build` again, it makes it anew"
                )

    def forget(
        self, stage: str, shards: Collection[str], keep: frozenset[str] = frozenset()
    ) -> None:
        """Take shards out of the ledger and delete their files, but those in `keep`."""
        if not shards:
            return
        ledger = self.ledger(stage)
        gone = [entry for shard in shards if (entry := ledger.pop(shard, None))]
        delete_lines(self.root, stage, shards)
        for entry in gone:
            for file in entry.files:
                if file.path not in keep:
                    storage.delete(self.path(file.path))

    def fold(self, stages: Iterable[str]) -> None:
        """Fold the ledgers of these stages, where they have grown to many files (ledger_folds)."""
        for stage in stages:
            self.reader.fold(stage)

    def tidy(self) -> None:
        """Delete the invalid entries that were not computed again, and files that no entry lists.

        Files that an invalid entry leaves in the tables would duplicate the rows that replace them.
        """
        lost = [stage for stage, lines in self.lost.items() if lines]
        for stage in lost:
            self.ledger(stage, refresh=True)
            delete_lines(self.root, stage, self.lost[stage])
            self.lost[stage] = {}
        if lost:
            gone = [path for path in self.strays() if layout.top(path) in _DATA]
            for path in gone:
                storage.delete(self.path(path))
                log.warning("%s: no line of the ledger knows it; it is deleted", self.path(path))

    def strays(self) -> list[str]:
        """Files that no entry of the ledger lists, sorted.

        Not among them are files that stages write outside the ledger, hidden files, and files with
        a name or an ending that no stage gives.
        """
        known = {
            file.path
            for stage in self.stage_names()
            for entry in self.ledger(stage).values()
            for file in entry.files
        }
        return [
            path
            for path in listings.list_below(self.root)
            if path.endswith(_ENDINGS) and path not in known and not _UNLEDGERED.fullmatch(path)
        ]

    def _begin(self) -> None:
        try:
            if not self.manifest:
                self.manifest = {"schema_version": SCHEMA_VERSION, "stages": {}}
            self.save()
        except Exception as error:  # each of Beam's filesystems raises types of its own
            raise UserError(
                f"{self.root} cannot be written ({error}): choose a folder you may write to"
            ) from error

    def save(self) -> None:
        """Write the manifest."""
        self.manifest["software"] = software_versions()
        if not self.doubted:
            self.manifest["place"] = self._place()
        data = sealed(dict(sorted(self.manifest.items())))
        storage.write_atomic(self.path(layout.MANIFEST), data)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock an atlas on local disk against other runs on this machine, until this process ends.

        Raises UserError if another run holds the lock. Object stores have no locks: there the user
        must start one run at a time.
        """
        with exclusive(self.root) if storage.is_local(self.root) else contextlib.nullcontext():
            self.reader.renewing = storage.is_local(self.root)
            try:
                self._sweep(time.time())
                yield
            finally:
                self.reader.renewing = False

    def _sweep(self, before: float) -> None:
        """Delete the half-written files that killed runs have left, those older than this run."""
        left = listings.half_written(self.root, before)
        for path in left:
            storage.delete(path)
        if left:
            log.info("%d half-written files of a run that was killed are deleted", len(left))


def _visible(name: str) -> bool:
    """Whether a file is not hidden. Killed runs may leave hidden temporary files."""
    return not name.startswith(".")
