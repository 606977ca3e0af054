"""The atlas directory: where everything lies, what is committed, and the manifest."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.metadata
import json
import logging
import os
import platform
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, NamedTuple

from vladmap.atlas import storage
from vladmap.atlas.commit import ledger_path
from vladmap.schemas import SCHEMA_VERSION
from vladmap.schemas.records import LedgerEntry, sealed, unsealed
from vladmap.schemas.rejects import UserError

log = logging.getLogger("vladmap")

_PACKAGES = ("apache-beam", "torch", "faiss-cpu", "faiss-gpu", "pyarrow", "pycolmap", "numpy")


_SHOWN = 3
_DATA = (
    "images",
    "rejects",
    "descriptors",
    "patches",
    "features",
    "pairs",
    "two_views",
    "index",
    "tiles",
    "model",
    "work",
)
_ENDINGS = (".parquet", ".bin", ".json", ".faiss", ".safetensors", ".checkpoint")
_UNLEDGERED = re.compile(
    r"atlas\.json|ledger/.*|work/\w+\.(json|parquet)|work/(tiles|vocabulary|organise)/[^/]*\.parquet"
)
"""What stages make for themselves, whatever was there before."""


class LostLine(NamedTuple):
    """A shard whose line in the ledger does not hold: the file that is to blame, and why.

    `entry` is None where the line itself cannot be read.
    """

    shard: str
    path: str
    why: str
    entry: LedgerEntry | None


@dataclass
class AtlasStore:
    """One atlas on any of Beam's filesystems. Paths inside it are relative to `root`.

    `doubted` where every file's digest is to be read before it is believed; `restored` why the
    manifest could not be read, if it could not; `lost` the lines of the ledger that do not hold, by
    stage and shard.
    """

    root: str
    manifest: dict[str, Any] = field(default_factory=dict)
    doubted: bool = False
    restored: str = ""
    lost: dict[str, dict[str, LostLine]] = field(default_factory=dict)
    _ledgers: dict[str, dict[str, LedgerEntry]] = field(default_factory=dict)
    _known: dict[str, storage.FileState] = field(default_factory=dict)
    _told: set[tuple[str, str]] = field(default_factory=set)
    _held: bool = False

    @staticmethod
    def open(root: str, *, create: bool, write: bool = True) -> AtlasStore:
        """Open an atlas, or begin one with `create`; without `write` nothing is put on disk.

        Raises UserError where the folder cannot be used: not there, not an atlas, not writable, or
        written by a newer vladmap.
        """
        root = os.path.abspath(root) if storage.is_local(root) else root.rstrip("/")
        atlas = AtlasStore(root)
        if storage.exists(atlas.path("atlas.json")):
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
        return storage.join(self.root, *parts)

    def _read_manifest(self) -> None:
        try:
            data = storage.read_bytes(self.path("atlas.json"))
        except OSError as error:
            self._restore(error.strerror or str(error))
            return
        version = _schema_version(data)
        if version > SCHEMA_VERSION:
            raise UserError(
                f"{self.root} has schema version {version}, this vladmap knows {SCHEMA_VERSION}: "
                "use a newer vladmap, or build into another folder"
            )
        try:
            self.manifest = unsealed(data)
            _check_manifest(self.manifest)
        except ValueError as error:
            self._restore(str(error))
        else:
            self.doubted = self.manifest.get("place") != self._place()

    def _restore(self, why: str) -> None:
        """What the ledger tells of a manifest that is lost; the next build completes it."""
        log.warning("%s: %s; it is made anew from the ledger", self.path("atlas.json"), why)
        self.doubted, self.restored = True, why
        self.manifest = {"schema_version": SCHEMA_VERSION, "stages": {}}
        names = self.stage_names()
        choices = {}
        for option, prefix in (("model", "describe-"), ("features", "features-")):
            found = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
            if len(found) == 1:
                choices[option] = found[0]
        self.manifest["report"] = choices
        for entry in self.ledger("plan").values():
            first = storage.read_table(self.path(entry.file.path)).slice(0, 1).to_pylist()
            for row in first:
                if str(row["uri"]).endswith(f"/{row['path']}"):
                    self.manifest["collection"] = row["uri"].removesuffix(f"/{row['path']}")

    def _place(self) -> str:
        """What a copy of an atlas on local disk does not share with it; empty elsewhere."""
        try:
            return str(os.stat(self.root).st_ino) if storage.is_local(self.root) else ""
        except FileNotFoundError:
            return ""

    def stage_names(self) -> list[str]:
        """All stages that have a folder in the ledger."""
        return storage.list_folders(self.path("ledger"))

    def check_all(self) -> None:
        """Read the digests of everything where the atlas is doubted: it is a copy, or was damaged.

        What holds then is believed until it changes.
        """
        if self.doubted:
            log.info("%s is a copy, or was damaged: every digest is read", self.root)
            for stage in self.stage_names():
                self.ledger(stage)
            self.doubted = False

    def doubt(self) -> bool:
        """Read every digest again; whether any line of the ledger was lost that held before."""
        before, stages = len(self._told), sorted(self._ledgers)
        self._known.clear()
        self.doubted = True
        for stage in stages:
            self.ledger(stage, refresh=True)
        self.doubted = False
        return len(self._told) > before

    def require(self, stages: Iterable[str]) -> None:
        """Raises UserError where a line of one of these stages does not hold."""
        for stage in stages:
            self.ledger(stage)
            for line in self.lost[stage].values():
                raise UserError(
                    f"{line.path}: {line.why}: run the same `vladmap build` again, it makes it anew"
                )

    def tidy(self) -> None:
        """Take out of the atlas the lines that did not hold and were not made again.

        Then what no line of the ledger knows in the folders of the data goes, too: rows that a lost
        line has left would stand beside those made in their place.
        """
        lost = [stage for stage, lines in self.lost.items() if lines]
        for stage in lost:
            self.ledger(stage, refresh=True)
            for shard in self.lost[stage]:
                with contextlib.suppress(UserError):  # a name that is not ours
                    storage.delete(self.path(ledger_path(stage, shard)))
            self.lost[stage] = {}
        if lost:
            gone = [path for path in self.strays() if path.partition("/")[0] in _DATA]
            for path in gone:
                storage.delete(self.path(path))
                log.warning("%s: no line of the ledger knows it; it is deleted", self.path(path))

    def strays(self) -> list[str]:
        """Files that no line of the ledger knows and no stage makes for itself, sorted.

        Hidden ones do not count, nor do those with a name or an ending that no file of ours has.
        """
        known = {
            file.path
            for stage in self.stage_names()
            for entry in self.ledger(stage).values()
            for file in entry.files
        }
        return [
            path
            for path in storage.list_below(self.root)
            if path.endswith(_ENDINGS) and path not in known and not _UNLEDGERED.fullmatch(path)
        ]

    def _begin(self) -> None:
        try:
            if not self.manifest:
                self.manifest = {"schema_version": SCHEMA_VERSION, "stages": {}}
            self.save()
        except Exception as error:  # each filesystem says "read-only" in its own way
            raise UserError(
                f"{self.root} cannot be written ({error}): choose a folder you may write to"
            ) from error

    def save(self) -> None:
        """Write the manifest."""
        self.manifest["software"] = software_versions()
        if not self.doubted:
            self.manifest["place"] = self._place()
        data = sealed(dict(sorted(self.manifest.items())))
        storage.write_atomic(self.path("atlas.json"), data)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs on this machine out of an atlas on local disk; ends with the process.

        Raises UserError where another run has it. Object stores know no locks: there it is the
        user's to start one run at a time.
        """
        if not storage.is_local(self.root):
            self._sweep(time.time())
            yield
            return
        with self._open_lock() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another run is at work on {self.root}: wait for its end, or stop it"
                ) from error
            except OSError:
                pass  # some network filesystems have no locks either
            self._held = True
            try:
                self._sweep(time.time())
                yield
            finally:
                self._held = False

    def _open_lock(self) -> BinaryIO:
        """The lock's file. What somebody put in its place is neither followed nor emptied."""
        path = f"{self.root}/.lock"
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            found = os.open(path, flags, 0o666)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise
            raise UserError(f"{path} is not a regular file: remove it") from error
        if not stat.S_ISREG(os.fstat(found).st_mode):
            os.close(found)
            raise UserError(f"{path} is not a regular file: remove it")
        return os.fdopen(found, "r+b")

    def _sweep(self, before: float) -> None:
        """Delete the half-written files that killed runs have left, those older than this run."""
        left = storage.half_written(self.root, before)
        for path in left:
            storage.delete(path)
        if left:
            log.info("%d half-written files of a run that was killed are deleted", len(left))

    def ledger(self, stage: str, *, refresh: bool = False) -> dict[str, LedgerEntry]:
        """Entries of a stage by shard whose files are still there, as they were committed.

        An entry that does not hold counts as absent, and is told of: its shard is made again.
        """
        if refresh or stage not in self._ledgers:
            self._ledgers[stage] = self._read_ledger(stage)
        return self._ledgers[stage]

    def _read_ledger(self, stage: str) -> dict[str, LedgerEntry]:
        paths = storage.list_files(self.path("ledger", stage), ".json")
        with ThreadPoolExecutor(16) as pool:
            read = list(pool.map(_read_line, paths))
        files = [file.path for entry, _ in read if entry for file in entry.files]
        states = storage.states([*paths, *map(self.path, files)])
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            checked = list(pool.map(partial(self._checked, states), paths, read))
        lost = {line.shard: line for line in checked if isinstance(line, LostLine)}
        self._tell(stage, lost)
        self.lost[stage] = lost
        entries = [entry for entry in checked if isinstance(entry, LedgerEntry)]
        return {entry.shard: entry for entry in sorted(entries, key=lambda entry: entry.shard)}

    def _checked(
        self,
        states: Mapping[str, storage.FileState],
        line: str,
        read: tuple[LedgerEntry | None, str],
    ) -> LedgerEntry | LostLine:
        """A line of the ledger if its files are as committed.

        Digests are read of files that changed after their line was written, and of all where the
        atlas is doubted: a file that nothing has touched since is what it was.
        """
        entry, why = read
        if entry is None:
            return LostLine(line.rpartition("/")[2].removesuffix(".json"), line, why, None)
        written = states.get(line)
        touched = False
        for file in entry.files:
            path = self.path(file.path)
            state = states.get(path)
            if state is None:
                return LostLine(entry.shard, path, "it is missing", entry)
            if state.bytes != file.bytes:
                why = f"it has {state.bytes} bytes, {file.bytes} were committed"
                return LostLine(entry.shard, path, why, entry)
            late = written is None or state.changed > written.changed
            touched = touched or late
            if (late or self.doubted) and self._known.get(path) != state:
                try:
                    found = storage.file_digest(path)
                except OSError as error:
                    return LostLine(entry.shard, path, error.strerror or str(error), entry)
                if found != file.digest:
                    return LostLine(entry.shard, path, "its bytes are not those committed", entry)
                self._known[path] = state
        if touched and self._held:
            with contextlib.suppress(OSError):
                storage.touch(line)  # its files need not be read again
        return entry

    def _tell(self, stage: str, lost: Mapping[str, LostLine]) -> None:
        new = [line for line in lost.values() if (line.path, line.why) not in self._told]
        self._told |= {(line.path, line.why) for line in new}
        for line in new[:_SHOWN]:
            log.warning("%s: %s; it counts as missing", line.path, line.why)
        if len(new) > _SHOWN:
            log.warning("%s: and %d more", self.path("ledger", stage), len(new) - _SHOWN)

    def digests(self) -> dict[str, str]:
        """Digest of every committed file of the stages that were asked for so far, by path."""
        return {
            file.path: file.digest
            for entries in self._ledgers.values()
            for entry in entries.values()
            for file in entry.files
        }

    def content(self, key: str) -> str | None:
        """Identity that `<stage>/<shard>` or its `:<part>` has now, as later stages see it."""
        stage, _, shard = key.rpartition("/")
        shard, _, part = shard.partition(":")
        entry = self.ledger(stage).get(shard)
        return entry.identity(part) if entry else None

    def forget(self, stage: str, shard: str, keep: frozenset[str] = frozenset()) -> None:
        """Take a shard out of the ledger and delete its files, but those in `keep`."""
        entry = self.ledger(stage).pop(shard, None)
        storage.delete(self.path(ledger_path(stage, shard)))
        for file in entry.files if entry else ():
            if file.path not in keep:
                storage.delete(self.path(file.path))


def _schema_version(data: bytes) -> int:
    """The version that a manifest states, 0 where that cannot be read."""
    try:
        return int(json.loads(data)["schema_version"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0


def _check_manifest(manifest: Mapping[str, Any]) -> None:
    """Raises ValueError for values of other types than `save` writes."""
    kinds = {"schema_version": int, "stages": dict, "collection": str, "report": dict}
    for key, kind in kinds.items():
        if key in manifest and not isinstance(manifest[key], kind):
            raise ValueError(f"{key} is of another type")
    if not all(isinstance(value, str) for value in manifest.get("stages", {"": None}).values()):
        raise ValueError("stages are of another type")


def _visible(name: str) -> bool:
    """Whether a file is somebody's; a killed run may leave a temporary one of ours."""
    return not name.startswith(".")


def _read_line(path: str) -> tuple[LedgerEntry | None, str]:
    """A line of the ledger, or why there is none."""
    try:
        entry = LedgerEntry.from_json(storage.read_bytes(path))
    except OSError as error:
        return None, error.strerror or str(error)
    except ValueError as error:
        return None, str(error)
    place = ledger_path(entry.stage, entry.shard)
    if not path.endswith(f"/{place}"):
        return None, f"it speaks of {place}"
    return entry, ""


def software_versions() -> dict[str, str]:
    """Versions of what made an atlas."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
