"""The facts in an XMP packet: exif, tiff, GPano and DJI's drone-dji schemas."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from vladmap.photos.headers.clocks import CaptureTime, capture_time, parse_offset
from vladmap.photos.headers.coordinates import read_position
from vladmap.photos.headers.facts import Facts, clean_text, plausible_time
from vladmap.photos.headers.projection import stated
from vladmap.photos.headers.xmp_packet import EXTENDED_GUID, Properties, UnreadableError, properties
from vladmap.photos.positions import (
    ALTITUDE_RANGE_M,
    angle,
    between,
    finite,
    is_tokyo,
    is_valid_position,
)

_EXIF = "http://ns.adobe.com/exif/1.0"
_EXIF_EX = "http://cipa.jp/exif/1.0"
_TIFF = "http://ns.adobe.com/tiff/1.0"
_PANO = "http://ns.google.com/photos/1.0/panorama"
_SPHERE = "http://ns.google.com/videos/1.0/spherical"
_DJI = "http://www.dji.com/drone-dji/1.0"
_XMP = "http://ns.adobe.com/xap/1.0"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0"

_POSED = ((_PANO, "PoseHeadingDegrees"), (_DJI, "GimbalYawDegree"))


def read_xmp(packet: bytes | str | None, extended: Mapping[str, bytes] | None = None) -> Facts:
    """The facts of one packet; what cannot be read gives a note and no facts.

    `extended` holds the packets of a JPEG that are continued elsewhere, by GUID: the one that this
    packet names adds what it does not say itself.
    """
    if not packet:
        return Facts()
    try:
        values = properties(packet)
    except UnreadableError as error:
        return Facts(notes=(str(error),))
    notes: list[str] = []
    extension = (extended or {}).get(values.get(EXTENDED_GUID, "").upper())
    if extension is not None:
        try:
            values = {**properties(extension), **values}
        except UnreadableError as error:
            notes.append(str(error))
    return _facts(values, notes)


def _facts(properties: Properties, notes: list[str]) -> Facts:
    position, position_invalid = _position(properties, notes)
    altitude, reference = _altitude(properties)
    true_heading, magnetic_heading = _headings(properties)
    captured = _capture_time(properties, position)
    focal_mm = _number(properties.get((_EXIF, "FocalLength")))
    focal_35mm = _number(properties.get((_EXIF, "FocalLengthIn35mmFilm")))
    return Facts(
        position=position,
        position_invalid=position_invalid,
        altitude=altitude,
        altitude_reference=reference,
        gps_accuracy_m=_first_between(
            properties, 1e-3, 1e5, (_EXIF, "GPSHPositioningError"),
            (_EXIF_EX, "GPSHPositioningError"),
        ),
        gps_dop=_first_between(properties, 0.1, 50.0, (_EXIF, "GPSDOP")),
        heading_deg=true_heading,
        magnetic_heading_deg=magnetic_heading,
        captured_at=captured.at,
        captured_local=captured.local,
        time_source=captured.source,
        make=clean_text(properties.get((_TIFF, "Make"))),
        model=clean_text(properties.get((_TIFF, "Model"))),
        focal_mm=between(focal_mm, 0.1, 5_000.0),
        focal_35mm=between(focal_35mm, 1.0, 10_000.0),
        projection=stated(
            properties.get((_PANO, "ProjectionType")) or properties.get((_SPHERE, "ProjectionType"))
        ),
        notes=(*notes, *captured.notes),
    )  # fmt: skip


def _number(text: str | None) -> float | None:
    """A number, with a decimal comma too: XMP has none, programs that write in their user's do."""
    return finite(re.sub(r"(?<=\d),(?=\d+$)", ".", text) if text and "." not in text else text)


def _first_between(
    properties: Properties, low: float, high: float, *keys: tuple[str, str]
) -> float | None:
    numbers = (between(_number(properties.get(key)), low, high) for key in keys)
    return next((number for number in numbers if number is not None), None)


def _position(properties: Properties, notes: list[str]) -> tuple[tuple[float, float] | None, bool]:
    """(position, whether one was written that cannot be used)."""
    written = False
    for schema, latitude_names, longitude_names in (
        (_EXIF, ["GPSLatitude"], ["GPSLongitude"]),
        # "GpsLongtitude" is how several of DJI's firmwares spell it.
        (_DJI, ["GpsLatitude", "Latitude"], ["GpsLongitude", "GpsLongtitude", "Longitude"]),
    ):
        texts = [
            next((properties[schema, name] for name in names if (schema, name) in properties), None)
            for names in (latitude_names, longitude_names)
        ]
        if texts == [None, None]:
            continue
        written = True
        references = [
            properties.get((schema, f"{names[0]}Ref"))
            for names in (latitude_names, longitude_names)
        ]
        position = read_position(*texts, *references)
        if schema == _EXIF and is_tokyo(properties.get((_EXIF, "GPSMapDatum"))):
            notes.append("position_datum_tokyo")
        elif position is not None and is_valid_position(*position):
            return position, False
    return None, written


def _altitude(properties: Properties) -> tuple[float | None, str | None]:
    number = _number(properties.get((_EXIF, "GPSAltitude")))
    if number is not None:
        code = finite(properties.get((_EXIF, "GPSAltitudeRef"))) or 0.0
        altitude = between(-abs(number) if code in (1.0, 3.0) else number, *ALTITUDE_RANGE_M)
        reference = "ellipsoid" if code in (2.0, 3.0) else "sea_level"
        return altitude, None if altitude is None else reference
    altitude = between(_number(properties.get((_DJI, "AbsoluteAltitude"))), *ALTITUDE_RANGE_M)
    return altitude, None if altitude is None else "sea_level"


def _headings(properties: Properties) -> tuple[float | None, float | None]:
    """(true, magnetic) direction of view."""
    direction = angle(_number(properties.get((_EXIF, "GPSImgDirection"))))
    reference = properties.get((_EXIF, "GPSImgDirectionRef"), "T").strip().upper()
    if direction is not None and not reference.startswith("M"):
        return direction, None
    # GPano counts 0 to 360, DJI's gimbal -180 to 180, both from true north.
    posed = (_number(properties.get(key)) for key in _POSED)
    return next((true for each in posed if (true := angle(each)) is not None), None), direction


def _capture_time(properties: Properties, position: tuple[float, float] | None) -> CaptureTime:
    """From ISO 8601 dates with or without a zone, and dates as EXIF has them."""
    cameras = []
    for key in (
        (_EXIF, "DateTimeOriginal"),
        (_PHOTOSHOP, "DateCreated"),
        (_XMP, "CreateDate"),
    ):
        moment = _moment(properties.get(key))
        # A bare date is no capture time.
        if moment is None or moment.time() == moment.time().min:
            continue
        offset = moment.utcoffset()
        if offset is None and key[0] == _EXIF:
            offset = parse_offset(
                properties.get((_EXIF, "OffsetTimeOriginal"))
                or properties.get((_EXIF_EX, "OffsetTimeOriginal"))
            )
        cameras.append((moment.replace(tzinfo=None), offset))
    gps = _moment(properties.get((_EXIF, "GPSTimeStamp")))
    if gps is None:
        day = clock = None
    else:
        utc = gps if gps.tzinfo is None else gps.astimezone(UTC).replace(tzinfo=None)
        day, clock = utc.date(), utc - datetime(utc.year, utc.month, utc.day)
    # The first that knows its zone.
    cameras.sort(key=lambda camera: camera[1] is None)
    return capture_time(cameras, day, clock, None if position is None else position[1])


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(re.sub(r"^(\d{4}):(\d\d):", r"\1-\2-", text or ""))
        if moment.tzinfo is not None:
            moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return plausible_time(moment)
