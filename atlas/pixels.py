"""Pixels of photographs: those of an atlas's collection, and those that are searched for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vladmap.atlas.errors import AtlasError, MissingPhotograph
from vladmap.atlas.photographs import Target, load_photo, photo_bytes
from vladmap.photos.decoding.bounds import MAX_PIXELS
from vladmap.photos.decoding.decode import decode_rgb
from vladmap.schemas.rejects import PhotoError


def of_collection(
    row: dict[str, Any], moved_to: str | None, long_side: int | None
) -> NDArray[np.uint8]:
    """Pixels of a photograph of `images/`, (H, W, 3) uint8 RGB, upright.

    `row` has the columns of photographs.SHARD_ROWS and `name`. The photograph is read where it was,
    or in the folder that the collection has `moved_to`; it has at most `long_side` pixels a side.
    Raises MissingPhotograph where it is not there, or has other bytes.
    """
    if moved_to is not None:
        row = {**row, "uri": _below(moved_to, row["name"])}
    photo = load_photo(row, MAX_PIXELS, None if long_side is None else _at_most(long_side))
    if photo.pixels is None:
        raise MissingPhotograph(
            f"{row['uri']}: {photo.error}. Where the collection has moved, open the atlas with "
            "Atlas(path, photographs=DIR)"
        )
    return photo.pixels


def of_query(item: str | os.PathLike[str] | NDArray[np.uint8], target: Target) -> NDArray[np.uint8]:
    """Pixels of a photograph that is searched for: an array as it is, a file at the size `target`.

    Raises MissingPhotograph for a file that cannot be read or decoded, AtlasError for an array that
    is not (H, W, 3) uint8.
    """
    if isinstance(item, np.ndarray):
        if item.ndim != 3 or item.shape[2] != 3 or item.dtype != np.uint8 or not item.size:
            raise AtlasError(f"a photograph is (H, W, 3) uint8, not {item.shape} {item.dtype}")
        return item
    path = os.fspath(item)
    try:
        return decode_rgb(photo_bytes(path, MAX_PIXELS), max_pixels=MAX_PIXELS, target=target)
    except PhotoError as error:
        raise MissingPhotograph(f"{path}: {error}") from error


def _at_most(long_side: int) -> Callable[[int, int], tuple[int, int]]:
    if long_side < 1:
        raise AtlasError(f"long_side = {long_side}: ask for one pixel or more")

    def target(width: int, height: int) -> tuple[int, int]:
        scale = min(1.0, long_side / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))

    return target


def _below(folder: str, name: str) -> str:
    """The place of a name of the collection; it does not lead out of the folder."""
    path = "/".join([folder.rstrip("/"), name])
    if name.startswith("/") or ".." in name.split("/") or "://" in name:
        raise MissingPhotograph(f"{name} does not lie below {folder}")
    return path
