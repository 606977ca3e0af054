"""Names of images: what they are called, and what their bytes are called."""

from __future__ import annotations

import hashlib

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "tif", "tiff", "webp", "bmp")

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
