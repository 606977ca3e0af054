"""Local features of one photograph of an image shard, in whatever process.

Apart from the transform that calls it, so that a process that extracts loads neither Beam nor torch
where the features need none.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from vladmap.atlas.photographs import Photo, load_photo
from vladmap.features.base import LocalFeatureExtractor, LocalFeatures
from vladmap.features.registry import load_extractor
from vladmap.schemas.rejects import PhotoError, RejectReason

Extracted = tuple[dict[str, Any], LocalFeatures | None, PhotoError | None]
"""A row of `images/` with its features, or the reason that there are none."""


@lru_cache(maxsize=2)
def extractor(detector: str, device: str) -> LocalFeatureExtractor:
    """The extractor of features by name, which this process keeps."""
    return load_extractor(detector, device=device)


def extract_photo(
    row: dict[str, Any], detector: str, max_pixels: int, device: str = "cpu"
) -> Extracted:
    """The features of one row of `images/`, or the reason that there are none."""
    photo: Photo = load_photo(row, max_pixels)
    if photo.pixels is None:
        return extracted(photo, None)
    return extracted(photo, extractor(detector, device).extract(photo.pixels))


def extracted(photo: Photo, features: LocalFeatures | None) -> Extracted:
    """What came of a photograph; without features what its reading says."""
    if features is None:
        return photo.row, None, photo.error
    if len(features) == 0:
        return photo.row, None, PhotoError(RejectReason.NO_FEATURES, "no local feature in it")
    return photo.row, features, None
