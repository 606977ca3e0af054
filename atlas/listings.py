"""What lies in the folders of an atlas, on any of Beam's filesystems."""

from __future__ import annotations

import contextlib
import glob
import os
import re

from vladmap.atlas import storage
from vladmap.schemas.records import is_plain_path

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")


def half_written(root: str, before: float) -> list[str]:
    """Temporary files of write_atomic below a root, last modified before a time (of the epoch)."""
    if storage.is_local(root):
        paths = [
            os.path.join(folder, name)
            for folder, _, names in os.walk(root)
            for name in names
            if _TEMPORARY.fullmatch(name)
        ]
        return sorted(path for path in paths if 0 < _modified(path) < before)
    return sorted(
        item.path
        for item in storage.remote_files().match([f"{glob.escape(root)}/**.tmp"])[0].metadata_list
        if _TEMPORARY.fullmatch(item.path.rpartition("/")[2])
        and 0 < (item.last_updated_in_seconds or 0) < before
    )


def _modified(path: str) -> float:
    """The time of a local file's last modification; 0 if it was deleted meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return os.lstat(path).st_mtime
    return 0.0


def list_files(folder: str, ending: str) -> list[str]:
    """Sorted paths of the files in a folder whose names have this ending; none without a folder."""
    return sorted(path for path, _ in list_modified(folder, ending))


def list_modified(folder: str, ending: str) -> list[tuple[str, float]]:
    """(path, time of modification since the epoch) of the files whose names have this ending."""
    if not storage.is_local(folder):
        matches = (
            storage.remote_files().match([f"{glob.escape(folder)}/*{ending}"])[0].metadata_list
        )
        return [(item.path, item.last_updated_in_seconds or 0.0) for item in matches]
    # Not by Beam, which takes brackets in the folder's name for a pattern.
    files = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(ending) and not entry.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    files.append((f"{folder}/{entry.name}", entry.stat().st_mtime))
    return files


def list_folders(folder: str) -> list[str]:
    """Sorted plain names (schemas.records.plain_path) of the folders in a folder."""
    names: set[str] = set()
    if storage.is_local(folder):
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(folder) as entries,
        ):
            names = {entry.name for entry in entries if entry.is_dir()}
    else:
        names = {path.partition("/")[0] for path in list_below(folder) if "/" in path}
    return sorted(name for name in names if is_plain_path(name))


def list_below(root: str) -> list[str]:
    """Sorted paths, relative to a root, of all files below it whose names are plain."""
    if storage.is_local(root):
        paths = [
            os.path.relpath(os.path.join(folder, name), root)
            for folder, _, names in os.walk(root)
            for name in names
        ]
    else:
        matched = storage.remote_files().match([f"{glob.escape(root)}/**"])[0].metadata_list
        paths = [item.path.removeprefix(f"{root}/") for item in matched]
    return sorted(path for path in paths if is_plain_path(path))
