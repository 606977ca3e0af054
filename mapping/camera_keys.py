"""Which images share a camera, and the intrinsics to assume of it before any evidence."""

from __future__ import annotations

import math

import pyarrow as pa

from vladmap.mapping.camera import Camera
from vladmap.photos.ids import content_hash

IMAGE_COLUMNS = ["image_id", "make", "model", "width", "height", "focal_px"]
"""Columns of IMAGES that say which camera took a photograph."""

DEFAULT_FOCAL_FACTOR = 1.2
"""Focal length over the long side, where EXIF gives none: COLMAP's, near that of phones."""


def camera_key(
    make: str | None, model: str | None, width: int, height: int, focal_px: float | None
) -> str:
    """Return the key under which images share a camera: maker, model, size and focal length."""
    focal = "unknown" if not _usable(focal_px) else f"{focal_px:.0f}px"
    name = " ".join(part.strip() for part in (make or "", model or "") if part.strip())
    return f"{name or 'unknown camera'} {width}x{height} {focal}"


def camera_name(key: str) -> str:
    """A camera's name in the ledger: a digest of its key, BLAKE2b-128 in hex."""
    return content_hash(key.encode())


def camera_keys(images: pa.Table) -> list[str]:
    """Return the camera key of each row of an IMAGES table."""
    columns = ("make", "model", "width", "height", "focal_px")
    return [
        camera_key(*row)
        for row in zip(*(images[name].to_pylist() for name in columns), strict=True)
    ]


def initial_camera(width: int, height: int, focal_px: float | None) -> Camera:
    """Return the camera to assume before any evidence: a pinhole, centred.

    Its focal length is `focal_px`, in pixels, from EXIF, or else 1.2 times the long side.
    """
    has_prior = _usable(focal_px)
    focal = float(focal_px or 0.0) if has_prior else DEFAULT_FOCAL_FACTOR * max(width, height)
    params = (focal, width / 2.0, height / 2.0)
    return Camera("SIMPLE_PINHOLE", width, height, params, has_prior)


def initial_cameras(images: pa.Table) -> dict[str, Camera]:
    """Return the initial camera of each key in an IMAGES table."""
    columns = (images[name].to_pylist() for name in ("width", "height", "focal_px"))
    first: dict[str, Camera] = {}
    for key, width, height, focal_px in zip(camera_keys(images), *columns, strict=True):
        if key not in first:
            first[key] = initial_camera(width, height, focal_px)
    return dict(sorted(first.items()))


def _usable(focal_px: float | None) -> bool:
    return focal_px is not None and math.isfinite(focal_px) and focal_px > 0.0
