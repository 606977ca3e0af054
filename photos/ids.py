"""Names of images: what they are called, and what their bytes are called."""

from __future__ import annotations

import hashlib

IMAGE_SUFFIXES = (
    *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "tif", "tiff", "webp", "bmp"),
    # Photographs that cannot be read are rejected by name, not passed over.
    *("heic", "heif", "hif", "avif"),
)

# What systems and network drives put beside photographs, in lower case: small copies of them, and
# what was thrown away. Whatever begins with a dot is left out, too.
_NOT_THE_USERS = frozenset(
    (
        *("@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot"),
        *("$recycle.bin", "recycler", "system volume information", "__macosx", "lost+found"),
    )
)

_DIGEST_BYTES = 16


def image_id(relative_path: str) -> str:
    """BLAKE2b-128, in hex, of a path relative to the collection's root, '/' between its parts.

    The path counts as it was listed: no Unicode normalisation, since a file system may hold both
    forms as two files. Names that are not UTF-8 (surrogate escapes) give the id of their bytes.
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
    """Whether a file or folder of this name is a system's, not the user's: hidden, or waste."""
    return name.startswith(".") or name.lower() in _NOT_THE_USERS
