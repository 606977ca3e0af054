"""The facts in EXIF (CIPA DC-008-2019, Exif 2.32; altitude references of Exif 3.0)."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

from PIL import ExifTags, Image

from vladmap.photos.headers.clocks import CaptureTime, capture_time, parse_offset
from vladmap.photos.headers.facts import Facts, clean_text, plausible_time
from vladmap.photos.headers.projection import CYLINDRICAL, stated
from vladmap.photos.positions import (
    ALTITUDE_RANGE_M,
    angle,
    between,
    finite,
    is_tokyo,
    is_valid_position,
)

_ALTITUDE_REFERENCES = {
    0: (1.0, "sea_level"),
    1: (-1.0, "sea_level"),
    2: (1.0, "ellipsoid"),
    3: (-1.0, "ellipsoid"),
}
_CUSTOM_RENDERED, _PANORAMA_SWEEP = 0xA401, 6
_ORIENTATIONS = range(1, 9)
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}


@dataclasses.dataclass(frozen=True)
class FocalPlane:
    """Pixels a millimetre on the sensor, and the pixel size of the picture they hold for."""

    px_per_mm: float
    width: int | None
    height: int | None


@dataclasses.dataclass(frozen=True)
class Exif:
    """EXIF's facts and what only EXIF has: orientation, focal plane, Mapillary's JSON text."""

    facts: Facts
    orientation: int
    focal_plane: FocalPlane | None
    description: str | None


def read_exif(image: Image.Image) -> Exif:
    """The EXIF of an opened photograph; a block that cannot be parsed counts as absent.

    Pillow parses hostile blocks lazily and with whatever exception its parsing happens to raise,
    so each of the three directories is fetched on its own and given up on its own.
    """
    notes: list[str] = []
    base = _directory(image, None, notes)
    if not base and image.info.get("exif"):
        # Some readers of Pillow have then met the error before us, and swallowed it.
        notes.append("exif_unreadable")
    details = _directory(image, ExifTags.IFD.Exif, notes)
    gps = _directory(image, ExifTags.IFD.GPSInfo, notes)
    position, position_invalid = _position(gps, notes)
    altitude, altitude_reference = _altitude(gps)
    captured = _capture_time(base, details, gps, position)
    true_heading, magnetic_heading = _headings(gps)
    facts = Facts(
        position=position,
        position_invalid=position_invalid,
        altitude=altitude,
        altitude_reference=altitude_reference,
        gps_accuracy_m=between(gps.get(ExifTags.GPS.GPSHPositioningError), 1e-3, 1e5),
        # 0 is "not measured"; from 50 up (99.99 is customary) "no usable fix".
        gps_dop=between(gps.get(ExifTags.GPS.GPSDOP), 0.1, 50.0),
        heading_deg=true_heading,
        magnetic_heading_deg=magnetic_heading,
        captured_at=captured.at,
        captured_local=captured.local,
        time_source=captured.source,
        make=clean_text(base.get(ExifTags.Base.Make)),
        model=clean_text(base.get(ExifTags.Base.Model)),
        focal_mm=between(details.get(ExifTags.Base.FocalLength), 0.1, 5_000.0),
        focal_35mm=between(details.get(ExifTags.Base.FocalLengthIn35mmFilm), 1.0, 10_000.0),
        projection=_projection(details),
        notes=(*notes, *captured.notes),
    )
    return Exif(
        facts=facts,
        orientation=_orientation(base),
        focal_plane=_focal_plane(details),
        description=_description(base.get(ExifTags.Base.ImageDescription)),
    )


def read_orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where none is written or it is none of these."""
    return _orientation(_directory(image, None, []))


def _orientation(base: Mapping[int, Any]) -> int:
    number = finite(base.get(ExifTags.Base.Orientation))
    return int(number) if number is not None and number in _ORIENTATIONS else 1


def _directory(image: Image.Image, tag: int | None, notes: list[str]) -> dict[int, Any]:
    try:
        exif = image.getexif()
        return dict(exif) if tag is None else dict(exif.get_ifd(tag))
    except Exception:
        if "exif_unreadable" not in notes:
            notes.append("exif_unreadable")
        return {}


def _description(value: Any) -> str | None:
    """ImageDescription as text: Pillow decodes ASCII tags as Latin-1, writers put UTF-8 there."""
    if isinstance(value, str):
        try:
            return value.encode("latin-1").decode("utf-8")
        except UnicodeError:
            return value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else None


def _projection(details: Mapping[int, Any]) -> str | None:
    """What Hugin writes into the comment, or Apple's cameras of a picture swept over the scene."""
    comment = details.get(ExifTags.Base.UserComment)
    if isinstance(comment, str):
        comment = comment.encode("utf-8", "replace")
    if isinstance(comment, bytes):
        match = re.search(rb"Projection: ([A-Za-z -]+) \(\d+\)", comment.replace(b"\0", b""))
        if match is not None:
            return stated(match[1].decode().replace("-", " "))
    return CYLINDRICAL if details.get(_CUSTOM_RENDERED) == _PANORAMA_SWEEP else None


def _letter(value: Any) -> str:
    text = clean_text(value)
    return text[0].upper() if text else ""


def _position(gps: Mapping[int, Any], notes: list[str]) -> tuple[tuple[float, float] | None, bool]:
    """(position, whether one was written that cannot be used)."""
    raw = (gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLongitude))
    if raw == (None, None):
        return None, False
    latitude = _coordinate(raw[0], _letter(gps.get(ExifTags.GPS.GPSLatitudeRef)), "NS")
    longitude = _coordinate(raw[1], _letter(gps.get(ExifTags.GPS.GPSLongitudeRef)), "EW")
    if is_tokyo(clean_text(gps.get(ExifTags.GPS.GPSMapDatum))):
        notes.append("position_datum_tokyo")
        return None, True
    if latitude is None or longitude is None or not is_valid_position(latitude, longitude):
        return None, True
    return (latitude, longitude), False


def _coordinate(value: Any, reference: str, references: str) -> float | None:
    """Signed degrees from degrees, minutes and seconds and a hemisphere letter.

    Writers also leave out seconds, or write decimal degrees alone. Without its letter a coordinate
    is ambiguous between two hemispheres and therefore none.
    """
    if not reference or reference not in references:
        return None
    parts = value if isinstance(value, tuple | list) else (value,)
    if not 1 <= len(parts) <= 3:
        return None
    numbers = [finite(part) for part in parts]
    degrees = 0.0
    for number, divisor in zip(numbers, (1.0, 60.0, 3600.0), strict=False):
        # 60 itself is what rounding makes of 59.9999.
        if number is None or number < 0.0 or (divisor > 1.0 and number > 60.0):
            return None
        degrees += number / divisor
    return degrees if reference == references[0] else -degrees


def _altitude(gps: Mapping[int, Any]) -> tuple[float | None, str | None]:
    magnitude = finite(gps.get(ExifTags.GPS.GPSAltitude))
    if magnitude is None:
        return None, None
    code = gps.get(ExifTags.GPS.GPSAltitudeRef)
    if isinstance(code, bytes):
        code = code[0] if code else 0
    number = finite(code)
    sign, reference = _ALTITUDE_REFERENCES.get(int(number or 0), (1.0, "sea_level"))
    altitude = between(sign * magnitude, *ALTITUDE_RANGE_M)
    return altitude, None if altitude is None else reference


def _headings(gps: Mapping[int, Any]) -> tuple[float | None, float | None]:
    """(true, magnetic) direction of view; at most one is given."""
    direction = angle(gps.get(ExifTags.GPS.GPSImgDirection))
    if direction is None:
        return None, None
    if _letter(gps.get(ExifTags.GPS.GPSImgDirectionRef)) == "M":
        return None, direction
    return direction, None


_TIME_TAGS = (
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.SubsecTimeOriginal,
     ExifTags.Base.OffsetTimeOriginal),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.SubsecTimeDigitized,
     ExifTags.Base.OffsetTimeDigitized),
    (ExifTags.Base.DateTime, ExifTags.Base.SubsecTime, ExifTags.Base.OffsetTime),
)  # fmt: skip


def _capture_time(
    base: Mapping[int, Any],
    details: Mapping[int, Any],
    gps: Mapping[int, Any],
    position: tuple[float, float] | None,
) -> CaptureTime:
    cameras = []
    for time_tag, subsecond_tag, offset_tag in _TIME_TAGS:
        source = base if time_tag == ExifTags.Base.DateTime else details
        local = _date_time(source.get(time_tag), details.get(subsecond_tag))
        if local is not None:
            offset = parse_offset(details.get(offset_tag))
            if offset is None:
                offset = parse_offset(details.get(ExifTags.Base.OffsetTime))
            cameras.append((local, offset))
    day, clock = _gps_time(gps)
    return capture_time(cameras, day, clock, None if position is None else position[1])


_DATE_TIME = re.compile(r"(\d{4})[:/-](\d\d?)[:/-](\d\d?)[ T](\d\d?):(\d\d?):(\d\d?)(?:\.(\d+))?")


def _date_time(value: Any, subsecond: Any) -> datetime | None:
    """Wall clock from "2021:10:15 16:55:46", its fraction from the sub-second tag."""
    match = _DATE_TIME.match(clean_text(value) or "")
    if match is None:
        return None
    digits = re.match(r"\d+", (clean_text(subsecond) or "").strip())
    fraction = digits[0] if digits else match[7] or "0"
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    try:
        moment = datetime(year, month, day, hour, minute, min(second, 59))
    except ValueError:
        return None
    return plausible_time(moment + timedelta(microseconds=int(fraction[:6].ljust(6, "0"))))


def _gps_time(gps: Mapping[int, Any]) -> tuple[date | None, timedelta | None]:
    """Day and time of day of GPSDateStamp and GPSTimeStamp (UTC by definition)."""
    written = re.match(r"(\d{4})[:/-](\d\d?)[:/-](\d\d?)", clean_text(
        gps.get(ExifTags.GPS.GPSDateStamp)) or "")  # fmt: skip
    day = None
    if written is not None:
        with contextlib.suppress(ValueError):
            day = date(int(written[1]), int(written[2]), int(written[3]))
    clock = gps.get(ExifTags.GPS.GPSTimeStamp)
    if not isinstance(clock, tuple | list) or len(clock) != 3:
        return day, None
    hours, minutes, seconds = (between(part, 0.0, 61.0) for part in clock)
    if hours is None or minutes is None or seconds is None or hours > 24.0:
        return day, None
    return day, timedelta(hours=hours, minutes=minutes, seconds=seconds)


def _focal_plane(details: Mapping[int, Any]) -> FocalPlane | None:
    """Sensor sampling from FocalPlaneX/YResolution; the mean of both where both are written."""
    unit = finite(details.get(ExifTags.Base.FocalPlaneResolutionUnit, 2))
    millimetres = _MM_PER_UNIT.get(int(unit or 0))
    axes = (ExifTags.Base.FocalPlaneXResolution, ExifTags.Base.FocalPlaneYResolution)
    resolutions = [
        number for axis in axes if (number := between(details.get(axis), 1e-3, 1e9)) is not None
    ]
    if millimetres is None or not resolutions:
        return None
    width = between(details.get(ExifTags.Base.ExifImageWidth), 1, 1e6)
    height = between(details.get(ExifTags.Base.ExifImageHeight), 1, 1e6)
    return FocalPlane(
        px_per_mm=sum(resolutions) / len(resolutions) / millimetres,
        width=None if width is None else int(width),
        height=None if height is None else int(height),
    )
