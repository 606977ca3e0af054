"""Ids of images by path and by content, and which file names are those of photographs."""

from __future__ import annotations

import hashlib

IMAGE_SUFFIXES = (
    *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "tif", "tiff", "webp", "bmp"),
    # These cannot be decoded: they are listed, so that they are rejected with a reason.
    *("heic", "heif", "hif", "avif"),
)

# Folders for thumbnails and deleted files that systems and network drives create, in lower case.
# Names that begin with a dot are ignored as well.
_SYSTEM_NAMES = frozenset(
    (
        *("@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot"),
        *("$recycle.bin", "recycler", "system volume information", "__macosx", "lost+found"),
    )
)

_DIGEST_BYTES = 16


def image_id(relative_path: str) -> str:
    """BLAKE2b-128, in hex, of a path relative to the collection's root, '/' between its parts.

    The path is used as it was listed, without Unicode normalisation, since a file system may hold
    both forms as two files. For names that are not UTF-8 (surrogate escapes) their bytes are used.
    """
    raw = relative_path.encode("utf-8", "surrogateescape")
    return hashlib.blake2b(raw, digest_size=_DIGEST_BYTES).hexdigest()


def content_hash(data: bytes) -> str:
    """BLAKE2b-128, in hex, of a file's bytes: equal hashes are exact duplicates."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def is_image_name(name: str) -> bool:
    """Whether a file name ends like a photograph's, in any case."""
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return bool(stem and dot) and suffix.lower() in IMAGE_SUFFIXES


def is_systems_name(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or was created by the operating system."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES
