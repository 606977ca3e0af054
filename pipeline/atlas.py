"""The atlas directory: where everything lies, what is committed, and the manifest."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from schemas import SCHEMA_VERSION
from schemas.records import LedgerEntry
from schemas.rejects import UserError
from transforms import storage
from transforms.commit import ledger_path

_PACKAGES = ("apache-beam", "torch", "faiss-cpu", "faiss-gpu", "pyarrow", "pycolmap", "numpy")


@dataclass
class Atlas:
    """One atlas on any of Beam's filesystems. Paths inside it are relative to `root`."""

    root: str
    manifest: dict[str, Any] = field(default_factory=dict)
    _ledgers: dict[str, dict[str, LedgerEntry]] = field(default_factory=dict)

    @staticmethod
    def open(root: str, *, create: bool, write: bool = True) -> Atlas:
        """Open an atlas, or begin one with `create`; without `write` nothing is put on disk.

        Raises UserError where the folder cannot be used: not there, not an atlas, not writable, or
        written by a newer vladmap.
        """
        root = os.path.abspath(root) if storage.is_local(root) else root.rstrip("/")
        atlas = Atlas(root)
        if storage.exists(atlas.path("atlas.json")):
            atlas._read_manifest()
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
            self.manifest = json.loads(storage.read_bytes(self.path("atlas.json")))
            version = int(self.manifest["schema_version"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.path('atlas.json')} cannot be read: {error}") from error
        if version > SCHEMA_VERSION:
            raise UserError(
                f"{self.root} has schema version {version}, this vladmap knows {SCHEMA_VERSION}: "
                "use a newer vladmap, or build into another folder"
            )

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
        data = json.dumps(self.manifest, indent=1, sort_keys=True) + "\n"
        storage.write_atomic(self.path("atlas.json"), data.encode())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs on this machine out of an atlas on local disk; ends with the process.

        Raises UserError where another run has it. Object stores know no locks: there it is the
        user's to start one run at a time.
        """
        if not storage.is_local(self.root):
            yield
            return
        with open(self.path(".lock"), "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another run is at work on {self.root}: wait for its end, or stop it"
                ) from error
            except OSError:
                pass  # some network filesystems have no locks either
            yield

    def ledger(self, stage: str, *, refresh: bool = False) -> dict[str, LedgerEntry]:
        """Entries of a stage by shard whose files are still there, whole in size.

        An entry that cannot be read counts as absent: its shard is simply made again.
        """
        if refresh or stage not in self._ledgers:
            self._ledgers[stage] = self._read_ledger(stage)
        return self._ledgers[stage]

    def _read_ledger(self, stage: str) -> dict[str, LedgerEntry]:
        paths = storage.list_files(self.path("ledger", stage), ".json")
        with ThreadPoolExecutor(16) as pool:
            entries = [entry for entry in pool.map(_read_entry, paths) if entry is not None]
        files = [file for entry in entries for file in entry.files]
        sizes = storage.sizes([self.path(file.path) for file in files])
        return {
            entry.shard: entry
            for entry in sorted(entries, key=lambda entry: entry.shard)
            if all(sizes.get(self.path(file.path)) == file.bytes for file in entry.files)
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


def _visible(name: str) -> bool:
    """Whether a file is somebody's; a killed run may leave a temporary one of ours."""
    return not name.startswith(".")


def _read_entry(path: str) -> LedgerEntry | None:
    try:
        return LedgerEntry.from_json(storage.read_bytes(path))
    except (OSError, ValueError):
        return None


def software_versions() -> dict[str, str]:
    """Versions of what made an atlas."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
