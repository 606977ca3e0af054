"""Photographs as files: JPEGs with the tags that cameras and GPS receivers write."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational

from vladmap.simulation.camera import Camera
from vladmap.simulation.fisheye import Fisheye

MAKE, MODEL = "vladmap", "Simulated Pinhole"

JPEG_QUALITY = 92
_UTC_OFFSET = timedelta(hours=2)
_SENSOR_WIDTH_MM = 6.4
_FILM_DIAGONAL_MM = 43.266615  # of the 24 x 36 mm frame


@dataclass(frozen=True)
class Fix:
    """What the GPS receiver says: degrees, metres, degrees clockwise from true north."""

    latitude: float
    longitude: float
    altitude: float
    accuracy: float
    heading: float


def exif_of(
    camera: Camera | Fisheye, moment: datetime, fix: Fix | None, model: str = MODEL
) -> Image.Exif:
    """The tags of one photograph. `moment`: local time, two hours before UTC."""
    exif = Image.Exif()
    exif[Base.Make] = MAKE
    exif[Base.Model] = model
    exif[Base.Orientation] = 1
    stamp = moment.strftime("%Y:%m:%d %H:%M:%S")
    exif[Base.DateTime] = stamp
    focal = camera.fx * _SENSOR_WIDTH_MM / camera.width
    diagonal = _SENSOR_WIDTH_MM * float(np.hypot(1.0, camera.height / camera.width))
    details = exif.get_ifd(IFD.Exif)
    details[Base.DateTimeOriginal] = stamp
    details[Base.SubsecTimeOriginal] = f"{moment.microsecond // 1000:03d}"
    details[Base.OffsetTimeOriginal] = "+02:00"
    details[Base.FocalLength] = _rational(focal, 10_000)
    details[Base.FocalLengthIn35mmFilm] = round(focal * _FILM_DIAGONAL_MM / diagonal)
    # Pixels a centimetre on the sensor: with it the focal length in pixels is exact.
    details[Base.FocalPlaneXResolution] = _rational(camera.width / _SENSOR_WIDTH_MM * 10, 1000)
    details[Base.FocalPlaneYResolution] = details[Base.FocalPlaneXResolution]
    details[Base.FocalPlaneResolutionUnit] = 3
    details[Base.ExifImageWidth] = camera.width
    details[Base.ExifImageHeight] = camera.height
    if fix is not None:
        _write_gps(exif.get_ifd(IFD.GPSInfo), moment, fix)
    return exif


def _write_gps(gps: dict[int, object], moment: datetime, fix: Fix) -> None:
    utc = (moment - _UTC_OFFSET).replace(tzinfo=UTC)
    gps[GPS.GPSVersionID] = b"\x02\x03\x00\x00"
    gps[GPS.GPSLatitudeRef] = "N" if fix.latitude >= 0 else "S"
    gps[GPS.GPSLatitude] = _sexagesimal(abs(fix.latitude))
    gps[GPS.GPSLongitudeRef] = "E" if fix.longitude >= 0 else "W"
    gps[GPS.GPSLongitude] = _sexagesimal(abs(fix.longitude))
    gps[GPS.GPSAltitudeRef] = b"\x00" if fix.altitude >= 0 else b"\x01"
    gps[GPS.GPSAltitude] = _rational(abs(fix.altitude), 1000)
    seconds = utc.second + round(utc.microsecond / 1e6, 3)
    gps[GPS.GPSTimeStamp] = (
        _rational(utc.hour, 1),
        _rational(utc.minute, 1),
        _rational(seconds, 1000),
    )
    gps[GPS.GPSDateStamp] = utc.strftime("%Y:%m:%d")
    gps[GPS.GPSImgDirectionRef] = "T"
    gps[GPS.GPSImgDirection] = _rational(fix.heading, 100)
    gps[GPS.GPSMapDatum] = "WGS-84"
    gps[GPS.GPSHPositioningError] = _rational(fix.accuracy, 1000)


def _rational(value: float, denominator: int) -> IFDRational:
    fraction = Fraction(round(value * denominator), denominator)
    return IFDRational(fraction.numerator, fraction.denominator)


def _sexagesimal(degrees: float) -> tuple[IFDRational, IFDRational, IFDRational]:
    """Degrees, minutes, seconds; a ten-thousandth of a second is 3 mm."""
    ticks = round(degrees * 3600 * 10_000)
    minutes, ticks = divmod(ticks, 60 * 10_000)
    return (
        IFDRational(minutes // 60, 1),
        IFDRational(minutes % 60, 1),
        IFDRational(ticks, 10_000),
    )


def jpeg_of(picture: NDArray[np.uint8], exif: Image.Exif, quality: int = JPEG_QUALITY) -> bytes:
    """A JPEG file of an (H, W, 3) sRGB picture."""
    buffer = io.BytesIO()
    image = Image.fromarray(picture)
    image.save(buffer, "JPEG", quality=quality, subsampling=0, exif=exif)
    return buffer.getvalue()
