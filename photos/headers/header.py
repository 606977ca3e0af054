"""The header of a photograph: its metadata, combined from all sources in the file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np
from PIL import ImageFile

from vladmap.photos.headers.clocks import ASSUMED_UTC, GPS, capture_time
from vladmap.photos.headers.exif import FocalPlane, read_exif
from vladmap.photos.headers.facts import Facts
from vladmap.photos.headers.mapillary import read_mapillary
from vladmap.photos.headers.projection import (
    PERSPECTIVE,
    UNKNOWN,
    by_camera,
    by_pixels,
    two_circles,
)
from vladmap.photos.headers.xmp import read_xmp
from vladmap.photos.headers.xmp_packet import jpeg_packets, raw_profile

_T = TypeVar("_T")

DOP_TO_METRES = 3.0
"""One-sigma range error of a present-day receiver, which a dilution of precision multiplies."""

FULL_FRAME_DIAGONAL_MM = math.hypot(36.0, 24.0)
_PLAUSIBLE_FOCAL = (0.15, 30.0)


@dataclasses.dataclass(frozen=True)
class Header:
    """Metadata of one photograph; None where it says nothing usable.

    width, height: pixels of the upright image, after EXIF orientation (1 to 8) is applied.
    focal_px: focal length in pixels of this image. focal_35mm, focal_mm: as the camera wrote them.
    captured_at: UTC. A wall-clock time whose zone neither an offset nor the GPS clock reveals is
        taken for UTC and noted as `capture_zone_unknown`: right within a drive, hours off outside.
    captured_local: what the camera's clock showed, without a zone.
    time_source: one of the sources in photos.headers.clocks.
    latitude, longitude: WGS84 degrees. altitude: metres above `altitude_reference`, which is
        `sea_level` or `ellipsoid`, negative below it.
    gps_accuracy_m: one-sigma horizontal error; what the receiver reported, else DOP times
        DOP_TO_METRES.
    heading_deg: direction of view in [0, 360), clockwise from true north; from a magnetic compass
        (noted as `heading_magnetic`) where nothing else is written.
    sequence: id of the drive, as Mapillary's tools wrote it.
    projection: one of photos.headers.projection; as long as the pixels are not looked at, what the
        metadata says. Notes say what it was taken from: `panorama` (written), `panorama_by_camera`,
        `panorama_by_pixels`.
    notes: what was found wrong and left out, e.g. `position_invalid`; sorted.
    """

    width: int
    height: int
    format: str
    orientation: int = 1
    make: str | None = None
    model: str | None = None
    focal_px: float | None = None
    focal_35mm: float | None = None
    focal_mm: float | None = None
    captured_at: datetime | None = None
    captured_local: datetime | None = None
    time_source: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    altitude: float | None = None
    altitude_reference: str | None = None
    gps_accuracy_m: float | None = None
    heading_deg: float | None = None
    sequence: str | None = None
    projection: str = PERSPECTIVE
    notes: tuple[str, ...] = ()


def header_of(image: ImageFile.ImageFile) -> Header:
    """Header of an image from `open_photo`: before a draft or load changes its size.

    Each fact comes from the first source that has it: EXIF, XMP, Mapillary's JSON. EXIF leads
    because every camera writes it and every editor keeps it; for the time, a source that knows its
    zone takes precedence over one that does not.
    """
    exif = read_exif(image)
    sources = (exif.facts, *_xmp_facts(image), read_mapillary(exif.description))
    notes = {note for source in sources for note in source.notes}

    position = _first(source.position for source in sources)
    if position is None and any(source.position_invalid for source in sources):
        notes.add("position_invalid")
    latitude, longitude = position or (None, None)

    heading = _first(source.heading_deg for source in sources)
    if heading is None:
        heading = _first(source.magnetic_heading_deg for source in sources)
        if heading is not None:
            notes.add("heading_magnetic")

    timed = _first(source if source.captured_at else None for source in sources)
    local = _first(source.captured_local for source in sources)
    if timed is not None:
        if timed.time_source == GPS and timed.captured_local is None and local is not None:
            # One source has the GPS clock, another the camera's: they are compared all the same.
            timed = _together(local, timed, longitude)
            notes |= set(timed.notes)
        captured_at, time_source = timed.captured_at, timed.time_source
        local = timed.captured_local or local
    elif local is not None:
        captured_at, time_source = local.replace(tzinfo=UTC), ASSUMED_UTC
        notes.add("capture_zone_unknown")
    else:
        captured_at = time_source = None

    accuracy = _first(source.gps_accuracy_m for source in sources)
    dop = _first(source.gps_dop for source in sources)
    if accuracy is None and dop is not None:
        accuracy = dop * DOP_TO_METRES

    width, height = upright_size(image, exif.orientation)
    make = _first(source.make for source in sources)
    model = _first(source.model for source in sources)
    projection = _first(source.projection for source in sources)
    if projection not in (None, PERSPECTIVE):
        notes.add("panorama")
    elif projection is None and (projection := by_camera(width, height, make, model)) is not None:
        notes.add("panorama_by_camera")
    focal_mm = _first(source.focal_mm for source in sources)
    focal_35mm = _first(source.focal_35mm for source in sources)
    return Header(
        width=width,
        height=height,
        format=image.format or "",
        orientation=exif.orientation,
        make=make,
        model=model,
        focal_px=(
            _focal_px(width, height, exif.focal_plane, focal_mm, focal_35mm)
            if projection in (None, PERSPECTIVE)
            else None
        ),
        focal_35mm=focal_35mm,
        focal_mm=focal_mm,
        captured_at=captured_at,
        captured_local=local,
        time_source=time_source,
        latitude=latitude,
        longitude=longitude,
        altitude=_first(source.altitude for source in sources),
        altitude_reference=_first(source.altitude_reference for source in sources),
        gps_accuracy_m=accuracy,
        heading_deg=heading,
        sequence=_first(source.sequence for source in sources),
        projection=projection or PERSPECTIVE,
        notes=tuple(sorted(notes)),
    )


def _together(local: datetime, gps: Facts, longitude: float | None) -> Facts:
    """`gps` with the capture time from its GPS clock and the camera's clock of another source."""
    if gps.captured_at is None:
        return gps
    moment = gps.captured_at.replace(tzinfo=None)
    clock = moment - datetime(moment.year, moment.month, moment.day)
    combined = capture_time([(local, None)], moment.date(), clock, longitude)
    return dataclasses.replace(
        gps, captured_at=combined.at, captured_local=combined.local, time_source=combined.source,
        notes=combined.notes,
    )  # fmt: skip


def _xmp_facts(image: ImageFile.ImageFile) -> list[Facts]:
    """What each XMP packet of the file says, in the file's order."""
    if image.format == "JPEG":
        packets, extended = jpeg_packets(getattr(image, "applist", []))
        return [read_xmp(packet, extended) for packet in packets]
    packet = image.info.get("xmp") or raw_profile(image.info.get("Raw profile type xmp"))
    return [read_xmp(packet)] if isinstance(packet, bytes | str) else []


def judged_by_pixels(header: Header, grey: np.ndarray) -> Header:
    """The header with the projection that its pixels prove where nothing is written of it.

    `grey` is the (h, w) uint8 picture, upright, of any size. Two circles of an all-round camera,
    not stitched yet, are UNKNOWN.
    """
    if "panorama" in header.notes:
        return header
    if "panorama_by_camera" in header.notes:
        projection = UNKNOWN if two_circles(grey) else header.projection
        return dataclasses.replace(header, projection=projection)
    proven = by_pixels(grey)
    if proven is None:
        return header
    notes = tuple(sorted({*header.notes, "panorama_by_pixels"}))
    return dataclasses.replace(header, projection=proven, focal_px=None, notes=notes)


def upright_size(image: ImageFile.ImageFile, orientation: int) -> tuple[int, int]:
    """(width, height) once EXIF orientation is applied, of an image that is not loaded yet."""
    width, height = image.size
    # Pillow's TIFF reader, alone among them, applies the orientation itself.
    if orientation >= 5 and image.format != "TIFF":
        return height, width
    return width, height


def _first(values: Iterable[_T | None]) -> _T | None:
    return next((value for value in values if value is not None), None)


def _focal_px(
    width: int,
    height: int,
    focal_plane: FocalPlane | None,
    focal_mm: float | None,
    focal_35mm: float | None,
) -> float | None:
    """Focal length in pixels, or None.

    From the sensor's sampling (pixels a millimetre, scaled from the size that EXIF gives it for to
    the size of this image: long side to long side, so that a turned image needs no other rule),
    else from the 35 mm equivalent, which relates the diagonals (CIPA DCG-001). Editors that shrink
    an image often leave the sampling as it was; where both are known and differ by more than half,
    the equivalent, which no resizing touches, is believed.
    """
    long_side = max(width, height)
    low, high = (bound * long_side for bound in _PLAUSIBLE_FOCAL)

    by_equivalent = None
    if focal_35mm is not None:
        by_equivalent = focal_35mm / FULL_FRAME_DIAGONAL_MM * math.hypot(width, height)
        by_equivalent = by_equivalent if low <= by_equivalent <= high else None

    if focal_plane is None or focal_mm is None:
        return by_equivalent
    sides = [side for side in (focal_plane.width, focal_plane.height) if side is not None]
    scale = long_side / max(sides) if sides else 1.0
    by_sampling = focal_mm * focal_plane.px_per_mm * scale
    if not low <= by_sampling <= high:
        return by_equivalent
    if by_equivalent is not None and not 1 / 1.5 <= by_sampling / by_equivalent <= 1.5:
        return by_equivalent
    return by_sampling
