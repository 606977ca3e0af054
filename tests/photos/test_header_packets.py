"""What a photograph says of itself in XMP packets and in the notes of Mapillary's tools."""

import dataclasses
from datetime import UTC, datetime

import pytest

from tests.photos.bad_photos import (
    encode,
    texture,
)
from tests.photos.headers import B, header_with, packet, read_header
from vladmap.photos.headers.xmp import read_xmp


class TestXmp:
    @pytest.mark.parametrize(
        ("latitude", "longitude", "expected"),
        [
            ("48,51.5N", "2,15.0E", (48 + 51.5 / 60, 2.25)),
            ("48,51,30N", "2,15,0W", (48 + 51.5 / 60, -2.25)),
            ("33,52.128S", "151,12.558E", (-33.8688, 151.2093)),
            ("-33.8688", "+151.2093", (-33.8688, 151.2093)),
            ("16,48.0S", "180,0.0W", (-16.8, -180.0)),
        ],
    )
    def test_forms_of_coordinates(self, latitude, longitude, expected):
        facts = read_xmp(packet(f'exif:GPSLatitude="{latitude}" exif:GPSLongitude="{longitude}"'))
        assert facts.position == pytest.approx(expected, abs=1e-9)

    @pytest.mark.parametrize("latitude", ["48,61N", "48,51.5E", "91,0N", "NaN", "inf", "x", "1/0"])
    def test_coordinates_that_are_none(self, latitude):
        facts = read_xmp(packet(f'exif:GPSLatitude="{latitude}" exif:GPSLongitude="2,15.0E"'))
        assert facts.position is None
        assert facts.position_invalid

    def test_elements_count_like_attributes(self):
        facts = read_xmp(
            packet(
                "",
                "<exif:GPSLatitude>48,51.5N</exif:GPSLatitude>"
                "<exif:GPSLongitude>2,15E</exif:GPSLongitude>"
                "<exif:GPSAltitude>1234/100</exif:GPSAltitude>"
                "<exif:GPSAltitudeRef>1</exif:GPSAltitudeRef>"
                "<tiff:Make>Ricoh</tiff:Make>",
            )
        )
        assert facts.position == pytest.approx((48 + 51.5 / 60, 2.25))
        assert (facts.altitude, facts.altitude_reference) == (-12.34, "sea_level")
        assert facts.make == "Ricoh"

    def test_drone_dji(self):
        facts = read_xmp(
            packet(
                'drone-dji:GpsLatitude="+46.5" drone-dji:GpsLongtitude="-6.25" '
                'drone-dji:AbsoluteAltitude="+431.20" drone-dji:GimbalYawDegree="-90.0"'
            )
        )
        assert facts.position == (46.5, -6.25)
        assert facts.altitude == 431.2
        assert facts.heading_deg == 270.0

    def test_capture_time_with_and_without_a_zone(self):
        zoned = read_xmp(packet('exif:DateTimeOriginal="2021-10-15T16:55:46.25+02:00"'))
        assert zoned.captured_at == datetime(2021, 10, 15, 14, 55, 46, 250000, tzinfo=UTC)
        plain = read_xmp(packet('exif:DateTimeOriginal="2021-10-15T16:55:46"'))
        assert plain.captured_local == datetime(2021, 10, 15, 16, 55, 46)

    def test_entities_are_never_expanded(self):
        bomb = b"<!DOCTYPE a [<!ENTITY a 'aaaaaaaaaa'>" + b"".join(
            b"<!ENTITY %c '%s'>" % (letter, b"&%c;" % (letter - 1) * 10) for letter in b"bcdefghi"
        )
        hostile = bomb + b"]><x xmlns:exif='http://ns.adobe.com/exif/1.0/' exif:GPSLatitude='&i;'/>"
        assert read_xmp(hostile).notes == ("xmp_unreadable",)
        external = b"<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>"
        assert read_xmp(external).notes == ("xmp_unreadable",)

    @pytest.mark.parametrize(
        "hostile",
        [b"<x", b"\xff\xfe\x00", b"<a>" * 50_000, b"<?xml version='1.0' encoding='zz'?><a/>"],
    )
    def test_broken_packets_cost_a_note_only(self, hostile):
        assert read_xmp(hostile).notes == ("xmp_unreadable",)

    def test_a_packet_of_megabytes_is_not_parsed(self):
        assert read_xmp(b"<a>" + b" " * 5_000_000 + b"</a>").notes == ("xmp_too_large",)

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
    def test_each_format_carries_it(self, kind):
        xmp = packet('exif:GPSLatitude="48,51.5N" exif:GPSLongitude="2,15.0E"')
        if kind == "PNG":
            from PIL.PngImagePlugin import PngInfo

            info = PngInfo()
            info.add_itxt("XML:com.adobe.xmp", xmp.decode())
            header = read_header(encode(texture(0), kind, pnginfo=info))
        elif kind == "TIFF":
            header = read_header(encode(texture(0), kind, tiffinfo={700: xmp}))
        else:
            header = read_header(encode(texture(0), kind, xmp=xmp))
        assert header.latitude == pytest.approx(48 + 51.5 / 60)


class TestMapillary:
    @staticmethod
    def header(text: str):
        return header_with(base={B.ImageDescription: text})

    def test_everything_that_the_tools_write(self):
        header = self.header(
            '{"MAPLatitude": "-33.5", "MAPLongitude": 151.25, "MAPAltitude": "37.0", '
            '"MAPCompassHeading": {"TrueHeading": 179.2, "MagneticHeading": 86.0}, '
            '"MAPCaptureTime": "2014_06_07_10_24_05_656", "MAPGPSAccuracyMeters": "10.0", '
            '"MAPSequenceUUID": "0F3F9BEF", "MAPDeviceMake": "Apple", '
            '"MAPDeviceModel": "iPhone4,1"}'
        )
        assert (header.latitude, header.longitude, header.altitude) == (-33.5, 151.25, 37.0)
        assert (header.heading_deg, header.gps_accuracy_m) == (179.2, 10.0)
        assert header.captured_at == datetime(2014, 6, 7, 10, 24, 5, 656000, tzinfo=UTC)
        assert (header.make, header.model, header.sequence) == ("Apple", "iPhone4,1", "0F3F9BEF")

    def test_no_compass_and_no_position(self):
        header = self.header(
            '{"MAPLatitude": 0, "MAPLongitude": 0, "MAPCompassHeading": {"TrueHeading": -1}}'
        )
        assert (header.latitude, header.heading_deg) == (None, None)
        assert header.notes == ("position_invalid",)

    @pytest.mark.parametrize(
        "text",
        [
            "a street",
            "[1, 2]",
            '{"a": 1}',
            "{",
            '{"MAPLatitude": ' + "[" * 20_000,
            '{"MAPAltitude": ' + "9" * 6_000 + "}",
            '{"MAPCompassHeading": 5, "MAPCaptureTime": 5, "MAPSequenceUUID": {}}',
        ],
    )
    def test_other_and_hostile_descriptions_say_nothing(self, text):
        header = self.header(text)
        nothing = dataclasses.asdict(read_header(encode(texture(0))))
        assert dataclasses.asdict(header) == nothing

    def test_nan_and_infinity_which_python_reads_in_json_are_no_position(self):
        header = self.header('{"MAPLatitude": NaN, "MAPLongitude": Infinity, "MAPAltitude": NaN}')
        assert (header.latitude, header.altitude) == (None, None)
        assert header.notes == ("position_invalid",)
