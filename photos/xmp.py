"""The facts in an XMP packet (ISO 16684-1): exif, tiff, GPano and DJI's drone-dji schemas."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from xml.parsers import expat

from photos.facts import Facts, clean_text, plausible_time
from photos.positions import ALTITUDE_RANGE_M, between, finite, is_valid_position
from photos.projection import stated

MAX_BYTES = 4_000_000
"""Above this a packet carries pictures, not facts, and is not parsed."""

_EXIF = "http://ns.adobe.com/exif/1.0/"
_EXIF_EX = "http://cipa.jp/exif/1.0/"
_TIFF = "http://ns.adobe.com/tiff/1.0/"
_PANO = "http://ns.google.com/photos/1.0/panorama/"
_SPHERE = "http://ns.google.com/videos/1.0/spherical/"
_DJI = "http://www.dji.com/drone-dji/1.0/"
_XMP = "http://ns.adobe.com/xap/1.0/"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_NAMESPACES = frozenset({_EXIF, _EXIF_EX, _TIFF, _PANO, _SPHERE, _DJI, _XMP, _PHOTOSHOP})

_Properties = dict[tuple[str, str], str]


class _Forbidden(Exception):
    """The packet declares a document type: the door to entity expansion."""


def read_xmp(packet: bytes | str | None) -> Facts:
    """The facts of one packet; anything that is not well-formed XML gives a note and no facts.

    A packet with a DTD is refused as a whole: XMP has no use for one, and entity declarations
    ("billion laughs") need one.
    """
    if not packet:
        return Facts()
    raw = packet.encode("utf-8", "replace") if isinstance(packet, str) else bytes(packet)
    # Writers pad packets with blanks and NULs behind the last tag, which no XML parser takes.
    raw = raw.strip(b"\0 \t\r\n")
    if len(raw) > MAX_BYTES:
        return Facts(notes=("xmp_too_large",))
    try:
        properties = _parse(raw)
    except (_Forbidden, expat.ExpatError, ValueError, LookupError):
        return Facts(notes=("xmp_unreadable",))
    position, position_invalid = _position(properties)
    altitude, reference = _altitude(properties)
    true_heading, magnetic_heading = _headings(properties)
    captured_at, captured_local = _capture_time(properties)
    focal_mm = finite(properties.get((_EXIF, "FocalLength")))
    focal_35mm = finite(properties.get((_EXIF, "FocalLengthIn35mmFilm")))
    return Facts(
        position=position,
        position_invalid=position_invalid,
        altitude=altitude,
        altitude_reference=reference,
        gps_accuracy_m=_first_between(
            properties, 1e-3, 1e5, (_EXIF, "GPSHPositioningError"),
            (_EXIF_EX, "GPSHPositioningError"),
        ),
        gps_dop=between(properties.get((_EXIF, "GPSDOP")), 0.1, 50.0),
        heading_deg=true_heading,
        magnetic_heading_deg=magnetic_heading,
        captured_at=captured_at,
        captured_local=captured_local,
        make=clean_text(properties.get((_TIFF, "Make"))),
        model=clean_text(properties.get((_TIFF, "Model"))),
        focal_mm=between(focal_mm, 0.1, 5_000.0),
        focal_35mm=between(focal_35mm, 1.0, 10_000.0),
        projection=stated(
            properties.get((_PANO, "ProjectionType")) or properties.get((_SPHERE, "ProjectionType"))
        ),
    )  # fmt: skip


def _parse(raw: bytes) -> _Properties:
    """Simple properties of the known schemas, written as attributes or as elements."""
    properties: _Properties = {}
    open_elements: list[tuple[tuple[str, str] | None, list[str]]] = []

    def key(name: str) -> tuple[str, str] | None:
        namespace, _, local = name.rpartition(" ")
        return (namespace, local) if namespace in _NAMESPACES else None

    def start(name: str, attributes: Mapping[str, str]) -> None:
        for attribute, value in attributes.items():
            if (found := key(attribute)) is not None:
                properties.setdefault(found, value)
        open_elements.append((key(name), []))

    def text(data: str) -> None:
        if open_elements and open_elements[-1][0] is not None:
            open_elements[-1][1].append(data)

    def end(_: str) -> None:
        found, pieces = open_elements.pop()
        value = "".join(pieces).strip()
        if found is not None and value:
            properties.setdefault(found, value)

    def forbid(*_: object) -> None:
        raise _Forbidden

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.CharacterDataHandler = text
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = forbid
    parser.EntityDeclHandler = forbid
    parser.Parse(raw, True)
    return properties


def _first_between(
    properties: _Properties, low: float, high: float, *keys: tuple[str, str]
) -> float | None:
    numbers = (between(properties.get(key), low, high) for key in keys)
    return next((number for number in numbers if number is not None), None)


def _position(properties: _Properties) -> tuple[tuple[float, float] | None, bool]:
    """(position, whether one was written that cannot be used)."""
    written = False
    for latitude_keys, longitude_keys in (
        ([(_EXIF, "GPSLatitude")], [(_EXIF, "GPSLongitude")]),
        # "GpsLongtitude" is how several of DJI's firmwares spell it.
        ([(_DJI, "GpsLatitude"), (_DJI, "Latitude")],
         [(_DJI, "GpsLongitude"), (_DJI, "GpsLongtitude"), (_DJI, "Longitude")]),
    ):  # fmt: skip
        texts = [
            next((properties[key] for key in keys if key in properties), None)
            for keys in (latitude_keys, longitude_keys)
        ]
        if texts == [None, None]:
            continue
        written = True
        latitude = _coordinate(texts[0], "NS")
        longitude = _coordinate(texts[1], "EW")
        if latitude is None or longitude is None:
            continue
        if is_valid_position(latitude, longitude):
            return (latitude, longitude), False
    return None, written


def _coordinate(text: str | None, references: str) -> float | None:
    """Signed degrees from "48,51.5N", "48,51,30N" or plain decimal degrees ("+48.858")."""
    text = (text or "").strip()
    match = re.fullmatch(r"(\d+)[, ](\d+(?:\.\d+)?)(?:[, ](\d+(?:\.\d+)?))?\s*([A-Za-z])", text)
    if match is None:
        return finite(text)
    letter = match[4].upper()
    minutes, seconds = float(match[2]), float(match[3] or 0.0)
    if letter not in references or minutes > 60.0 or seconds > 60.0 or len(match[1]) > 3:
        return None
    degrees = int(match[1]) + minutes / 60.0 + seconds / 3600.0
    return -degrees if letter == references[1] else degrees


def _altitude(properties: _Properties) -> tuple[float | None, str | None]:
    number = finite(properties.get((_EXIF, "GPSAltitude")))
    if number is not None:
        code = finite(properties.get((_EXIF, "GPSAltitudeRef"))) or 0.0
        altitude = between(-number if code in (1.0, 3.0) else number, *ALTITUDE_RANGE_M)
        reference = "ellipsoid" if code in (2.0, 3.0) else "sea_level"
        return altitude, None if altitude is None else reference
    altitude = between(properties.get((_DJI, "AbsoluteAltitude")), *ALTITUDE_RANGE_M)
    return altitude, None if altitude is None else "sea_level"


def _headings(properties: _Properties) -> tuple[float | None, float | None]:
    """(true, magnetic) direction of view."""
    direction = between(properties.get((_EXIF, "GPSImgDirection")), 0.0, 360.0)
    magnetic = (properties.get((_EXIF, "GPSImgDirectionRef")) or "T").strip().upper() == "M"
    if direction is not None and not magnetic:
        return direction % 360.0, None
    # GPano counts 0 to 360, DJI's gimbal -180 to 180, both from true north.
    posed = _first_between(
        properties, -180.0, 360.0, (_PANO, "PoseHeadingDegrees"), (_DJI, "GimbalYawDegree")
    )
    true = None if posed is None else posed % 360.0
    return true, None if direction is None else direction % 360.0


def _capture_time(properties: _Properties) -> tuple[datetime | None, datetime | None]:
    """(instant, wall clock) from ISO 8601 dates, with or without a zone."""
    for key in (
        (_EXIF, "DateTimeOriginal"),
        (_PHOTOSHOP, "DateCreated"),
        (_XMP, "CreateDate"),
        (_EXIF, "GPSTimeStamp"),
    ):
        try:
            moment = datetime.fromisoformat(properties.get(key, ""))
            if moment.tzinfo is not None:
                moment = moment.astimezone(UTC)
        except (ValueError, OverflowError):
            continue
        if plausible_time(moment) is None or moment.time() == moment.time().min:
            # A bare date is no capture time.
            continue
        return (None, moment) if moment.tzinfo is None else (moment, None)
    return None, None
