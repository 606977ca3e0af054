import dataclasses
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from tests.photos.bad_photos import (
    bad_files,
    encode,
    exif_block,
    gps_tags,
    jpeg_bomb,
    texture,
    write_bad_inputs,
    write_odd_inputs,
)
from vladmap.photos.headers.header import DOP_TO_METRES, read_header
from vladmap.photos.headers.xmp import read_xmp
from vladmap.photos.positions import finite, valid_positions
from vladmap.schemas.rejects import PhotoError, RejectReason

B = ExifTags.Base
G = ExifTags.GPS


def header_with(*, base=None, details=None, gps=None, xmp=None, size=(192, 144), kind="JPEG"):
    options = {"exif": exif_block(base=base, details=details, gps=gps)}
    if xmp is not None:
        options["xmp"] = xmp
    return read_header(encode(texture(0, *size), kind, **options))


def packet(properties: str, children: str = "") -> bytes:
    return (
        "<?xpacket begin='' id='W5M0MpCehiHzreSzNTczkc9d'?><x:xmpmeta xmlns:x='adobe:ns:meta/'>"
        "<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
        "<rdf:Description rdf:about='' xmlns:exif='http://ns.adobe.com/exif/1.0/' "
        "xmlns:tiff='http://ns.adobe.com/tiff/1.0/' "
        "xmlns:GPano='http://ns.google.com/photos/1.0/panorama/' "
        "xmlns:drone-dji='http://www.dji.com/drone-dji/1.0/' "
        f"{properties}>{children}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
    ).encode()


class TestPosition:
    @pytest.mark.parametrize(
        "position",
        [
            (55.698167, 13.195389),
            (-33.8688, 151.2093),
            (46.162148, -1.139271),
            (-34.6037, -58.3816),
            (-16.8, 180.0),
            (-16.8, -180.0),
            (0.0, 6.5),
            (51.5, 0.0),
            (90.0, 0.0),
        ],
    )
    def test_every_hemisphere_and_both_sides_of_the_antimeridian(self, position):
        header = header_with(gps=gps_tags(*position))
        assert (header.latitude, header.longitude) == pytest.approx(position, abs=1e-9)
        assert header.notes == ()

    @pytest.mark.parametrize(
        "gps",
        [
            gps_tags(0.0, 0.0),
            gps_tags(90.5, 0.0),
            gps_tags(10.0, 180.5),
            {**gps_tags(10.0, 20.0), G.GPSLatitude: (IFDRational(0, 0),) * 3},
            {**gps_tags(10.0, 20.0), G.GPSLongitude: (IFDRational(1, 0),) * 3},
            {**gps_tags(10.0, 20.0), G.GPSLatitude: (10.0, 61.0, 0.0)},
            {**gps_tags(10.0, 20.0), G.GPSLatitude: (10.0, 1.0, 1.0, 1.0)},
            {**gps_tags(10.0, 20.0), G.GPSLatitudeRef: "X"},
            {key: value for key, value in gps_tags(10.0, 20.0).items() if key != G.GPSLatitudeRef},
            {key: value for key, value in gps_tags(10.0, 20.0).items() if key != G.GPSLongitude},
            {**gps_tags(35.0, 139.0), G.GPSMapDatum: "TOKYO"},
        ],
    )
    def test_what_is_no_position_is_null_and_noted_and_the_image_kept(self, gps):
        header = header_with(gps=gps)
        assert (header.latitude, header.longitude) == (None, None)
        assert "position_invalid" in header.notes

    def test_no_gps_at_all_is_not_an_invalid_position(self):
        header = read_header(encode(texture(0)))
        assert header.latitude is None
        assert header.notes == ()

    def test_decimal_minutes_and_decimal_degrees_are_read(self):
        gps = {**gps_tags(1.0, 1.0), G.GPSLatitude: (48.0, 51.5), G.GPSLongitude: (2.25,)}
        header = header_with(gps=gps)
        assert (header.latitude, header.longitude) == pytest.approx((48 + 51.5 / 60, 2.25))

    def test_spelt_out_and_padded_references_are_read(self):
        gps = {**gps_tags(33.5, 70.5), G.GPSLatitudeRef: "south\0", G.GPSLongitudeRef: "w"}
        header = header_with(gps=gps)
        assert (header.latitude, header.longitude) == pytest.approx((-33.5, -70.5))

    def test_a_second_source_stands_in_for_an_invalid_first(self):
        header = header_with(
            gps=gps_tags(0.0, 0.0),
            xmp=packet('exif:GPSLatitude="48,51.5N" exif:GPSLongitude="2,15W"'),
        )
        assert (header.latitude, header.longitude) == pytest.approx((48 + 51.5 / 60, -2.25))
        assert header.notes == ()

    def test_scalar_and_vector_rules_agree_on_arrays_with_none(self):
        valid = valid_positions(
            [0.0, None, 91.0, -90.0, 5.0, np.nan], [0.0, 1.0, 0.0, 180.0, -181.0, 1.0]
        )
        assert valid.tolist() == [False, False, False, True, False, False]


class TestGpsDetails:
    @pytest.mark.parametrize(
        ("code", "altitude", "reference"),
        [
            (b"\x00", 37.5, "sea_level"),
            (b"\x01", -37.5, "sea_level"),
            (b"\x02", 37.5, "ellipsoid"),
            (b"\x03", -37.5, "ellipsoid"),
            (None, 37.5, "sea_level"),
        ],
    )
    def test_altitude_is_above_or_below_its_reference(self, code, altitude, reference):
        gps = gps_tags(1.0, 1.0, GPSAltitude=37.5)
        if code is not None:
            gps[G.GPSAltitudeRef] = code
        header = header_with(gps=gps)
        assert (header.altitude, header.altitude_reference) == (altitude, reference)

    @pytest.mark.parametrize("value", [IFDRational(1, 0), IFDRational(4294967295, 1000), 1e6])
    def test_an_altitude_of_no_street_is_null(self, value):
        header = header_with(gps=gps_tags(1.0, 1.0, GPSAltitude=value))
        assert (header.altitude, header.altitude_reference) == (None, None)

    def test_reported_accuracy_goes_before_dilution_of_precision(self):
        both = header_with(gps=gps_tags(1.0, 1.0, GPSHPositioningError=4.5, GPSDOP=2.0))
        assert both.gps_accuracy_m == 4.5
        dop = header_with(gps=gps_tags(1.0, 1.0, GPSDOP=2.0))
        assert dop.gps_accuracy_m == pytest.approx(2.0 * DOP_TO_METRES)
        assert header_with(gps=gps_tags(1.0, 1.0, GPSDOP=0.0)).gps_accuracy_m is None
        assert header_with(gps=gps_tags(1.0, 1.0, GPSDOP=99.99)).gps_accuracy_m is None

    def test_true_heading_goes_before_magnetic(self):
        gps = gps_tags(1.0, 1.0, GPSImgDirection=370.0)
        assert header_with(gps=gps).heading_deg == pytest.approx(10.0)
        gps = gps_tags(1.0, 1.0, GPSImgDirection=65535.0)
        assert header_with(gps=gps).heading_deg is None
        gps = gps_tags(1.0, 1.0, GPSImgDirection=360.0, GPSImgDirectionRef="T")
        assert header_with(gps=gps).heading_deg == 0.0
        gps = gps_tags(1.0, 1.0, GPSImgDirection=123.4, GPSImgDirectionRef="M")
        magnetic = header_with(gps=gps)
        assert magnetic.heading_deg == pytest.approx(123.4)
        assert magnetic.notes == ("heading_magnetic",)
        posed = header_with(gps=gps, xmp=packet('GPano:PoseHeadingDegrees="350.5"'))
        assert posed.heading_deg == pytest.approx(350.5)
        assert posed.notes == ()


class TestCaptureTime:
    def test_offset_and_sub_seconds(self):
        header = header_with(
            details={
                B.DateTimeOriginal: "2021:10:15 16:55:46",
                B.SubsecTimeOriginal: "6376",
                B.OffsetTimeOriginal: "+02:00",
            }
        )
        assert header.captured_at == datetime(2021, 10, 15, 14, 55, 46, 637600, tzinfo=UTC)
        assert header.notes == ()

    @pytest.mark.parametrize(
        ("offset", "hour", "minute"), [("-03:30", 20, 25), ("+0545", 11, 10), ("Z", 16, 55)]
    )
    def test_offsets_of_both_signs(self, offset, hour, minute):
        header = header_with(
            details={B.DateTimeOriginal: "2021:10:15 16:55:46", B.OffsetTimeOriginal: offset}
        )
        assert header.captured_at == datetime(2021, 10, 15, hour, minute, 46, tzinfo=UTC)

    def test_without_an_offset_the_gps_clock_gives_the_zone_and_the_camera_the_fraction(self):
        gps = gps_tags(1.0, 1.0, GPSDateStamp="2021:10:15", GPSTimeStamp=(14.0, 55.0, 46.0))
        header = header_with(
            details={B.DateTimeOriginal: "2021:10:15 16:55:46", B.SubsecTimeOriginal: "25"}, gps=gps
        )
        assert header.captured_at == datetime(2021, 10, 15, 14, 55, 46, 250000, tzinfo=UTC)

    def test_a_camera_clock_that_is_wrong_yields_to_the_gps_clock(self):
        gps = gps_tags(1.0, 1.0, GPSDateStamp="2021:10:15", GPSTimeStamp=(14.0, 55.0, 46.5))
        for wrong in ("2015:01:01 00:00:12", "2021:10:15 17:01:00"):
            header = header_with(details={B.DateTimeOriginal: wrong}, gps=gps)
            assert header.captured_at == datetime(2021, 10, 15, 14, 55, 46, 500000, tzinfo=UTC)

    def test_gps_time_alone(self):
        gps = gps_tags(1.0, 1.0, GPSDateStamp="2021:10:15", GPSTimeStamp=(23.0, 59.0, 60.0))
        assert header_with(gps=gps).captured_at == datetime(2021, 10, 16, tzinfo=UTC)

    def test_an_unknown_zone_counts_as_utc_and_is_noted(self):
        header = header_with(base={B.DateTime: "2021:10:15 16:55:46"})
        assert header.captured_at == datetime(2021, 10, 15, 16, 55, 46, tzinfo=UTC)
        assert header.notes == ("capture_zone_unknown",)

    @pytest.mark.parametrize(
        "text",
        ["0000:00:00 00:00:00", "2021:13:45 16:55:46", "    :  :     :  :  ", "", "yesterday"],
    )
    def test_what_is_no_time_is_null(self, text):
        assert header_with(details={B.DateTimeOriginal: text}).captured_at is None


class TestFocalLength:
    focal_plane = {  # noqa: RUF012
        B.FocalLength: 24.0,
        B.FocalPlaneXResolution: 5000.0,
        B.FocalPlaneYResolution: 5000.0,
        B.FocalPlaneResolutionUnit: 3,
        B.ExifImageWidth: 384,
        B.ExifImageHeight: 288,
    }

    def plane(self, **changes):
        return {**self.focal_plane, B.FocalPlaneXResolution: 100.0, B.FocalPlaneYResolution: 100.0,
                **{B[name]: value for name, value in changes.items()}}  # fmt: skip

    def test_focal_plane_resolution_scaled_to_the_image(self):
        # 100 px/cm = 10 px/mm, 24 mm = 240 px at 384 wide, 120 px at 192 wide.
        assert header_with(details=self.plane()).focal_px == pytest.approx(120.0)

    def test_orientation_swaps_the_axes_and_not_the_focal_length(self):
        header = header_with(details=self.plane(), base={B.Orientation: 6})
        assert (header.width, header.height) == (144, 192)
        assert header.focal_px == pytest.approx(120.0)

    def test_units_of_the_focal_plane(self):
        inch = self.plane(FocalPlaneResolutionUnit=2, FocalPlaneXResolution=254.0,
                          FocalPlaneYResolution=254.0)  # fmt: skip
        assert header_with(details=inch).focal_px == pytest.approx(120.0)
        unknown = self.plane(FocalPlaneResolutionUnit=1)
        assert header_with(details=unknown).focal_px is None

    def test_35_mm_equivalent_relates_the_diagonals(self):
        # A 192x144 image has a diagonal of 240 px, full frame one of 43.2666 mm.
        header = header_with(details={B.FocalLengthIn35mmFilm: 28})
        assert header.focal_px == pytest.approx(28 * 240 / 43.26661531)
        assert header.focal_35mm == 28.0

    def test_a_focal_plane_that_contradicts_the_equivalent_is_not_believed(self):
        details = self.plane(ExifImageWidth=192, ExifImageHeight=144, FocalLengthIn35mmFilm=22)
        assert header_with(details=details).focal_px == pytest.approx(22 * 240 / 43.26661531)

    @pytest.mark.parametrize("value", [IFDRational(1, 0), 0.0])
    def test_a_focal_plane_of_nothing_is_no_focal_length(self, value):
        details = self.plane(FocalPlaneXResolution=value, FocalPlaneYResolution=value)
        assert header_with(details=details).focal_px is None

    def test_a_panorama_has_no_focal_length(self):
        header = header_with(
            details={B.FocalLengthIn35mmFilm: 28},
            xmp=packet('GPano:ProjectionType="equirectangular"'),
        )
        assert header.focal_px is None
        assert header.notes == ("panorama",)


class TestOrientation:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_size_is_that_of_the_upright_image(self, kind, orientation):
        header = header_with(base={B.Orientation: orientation}, kind=kind)
        assert (header.width, header.height) == ((192, 144) if orientation < 5 else (144, 192))
        assert (header.orientation, header.format) == (orientation, kind)

    @pytest.mark.parametrize("value", [0, 9, 65535])
    def test_an_orientation_that_does_not_exist_is_upright(self, value):
        assert header_with(base={B.Orientation: value}).orientation == 1


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


class TestText:
    def test_padding_and_control_characters_are_taken_off(self):
        header = header_with(base={B.Make: "  NIKON \0\0junk", B.Model: "D\x01 7\n0"})
        assert (header.make, header.model) == ("NIKON", "D 7 0")

    def test_a_huge_tag_is_cut(self):
        assert len(header_with(base={B.Make: "x" * 40_000}).make) == 256

    def test_every_text_is_utf8(self):
        header = header_with(base={B.Make: b"\xff\xfe\x80Caf\xc3\xa9"})
        assert header.make is None or header.make.encode("utf-8")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (IFDRational(5, 2), 2.5),
        (IFDRational(1, 0), None),
        ((3.0,), 3.0),
        ("25/10", 2.5),
        (" 2.5 \0", 2.5),
        ("1/0", None),
        (math.inf, None),
        (math.nan, None),
        ("nan", None),
        (True, None),
        (b"1", None),
        (None, None),
        ((1.0, 2.0), None),
        (10**400, None),
    ],
)
def test_a_number_is_finite_or_none(value, expected):
    assert finite(value) == expected


class TestErrors:
    @pytest.mark.parametrize("name", sorted(bad_files()))
    def test_each_bad_file_for_its_reason(self, name):
        data, reason = bad_files()[name]
        with pytest.raises(PhotoError) as caught:
            read_header(data)
        assert caught.value.reason is reason
        assert caught.value.detail
        assert "\n" not in caught.value.detail

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"<!doctype html><p>404", "an HTML page"),
            (b"\xef\xbb\xbf\n <html>", "an HTML page"),
            (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
            (b'{"error": 404}', "JSON"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
            (b"hello world", "text that begins with 'hello world'"),
            (b"BMW cars, a list of them all", "text that begins with"),
            (b"GIF89a" + bytes(20), "GIF"),
            (b"%PDF-1.4", "PDF"),
            (b"\0\0\0\x18ftypheic" + bytes(9), "HEIC"),
            (b"\0\0\0\x18ftypisom" + bytes(9), "video"),
            (bytes(5_000), "zero bytes"),
            (b"\x93\x12\xfe\xdc\x88" * 50, "unknown binary data"),
        ],
    )
    def test_what_is_no_image_is_said_to_look_like_something(self, data, words):
        with pytest.raises(PhotoError) as caught:
            read_header(data)
        assert caught.value.reason is RejectReason.NOT_AN_IMAGE
        assert words in caught.value.detail

    def test_too_many_pixels_names_the_limit_and_the_option(self):
        with pytest.raises(PhotoError) as caught:
            read_header(jpeg_bomb(), max_pixels=1_000_000)
        assert "1,000,000" in caught.value.detail
        assert "--max-pixels" in caught.value.detail

    def test_the_limit_itself_is_allowed(self):
        data = encode(texture(0))
        assert read_header(data, max_pixels=192 * 144).width == 192
        with pytest.raises(PhotoError):
            read_header(data, max_pixels=192 * 144 - 1)

    def test_sixteen_pixels_a_side_are_enough_and_fifteen_are_not(self):
        assert read_header(encode(texture(0)[:16, :16])).width == 16
        with pytest.raises(PhotoError) as caught:
            read_header(encode(texture(0)[:15]))
        assert caught.value.reason is RejectReason.TOO_SMALL
        assert "16" in caught.value.detail

    def test_the_name_plays_no_part_a_png_named_jpg_is_a_png(self):
        assert read_header(encode(texture(0), "PNG")).format == "PNG"

    def test_exif_that_does_not_parse_costs_the_exif_only(self):
        exif = exif_block(base={B.Make: "Acme"}, gps=gps_tags(1.0, 2.0))
        broken = exif.replace(b"MM\0*", b"XX\0*").replace(b"II*\0", b"XX*\0")
        header = read_header(encode(texture(0), exif=broken))
        assert (header.make, header.latitude) == (None, None)
        assert header.notes == ("exif_unreadable",)


def test_pillows_globals_are_neither_obeyed_nor_touched(monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for kind in ("JPEG", "PNG", "TIFF", "WEBP", "BMP"):
        assert read_header(encode(texture(0), kind)).width == 192
    assert Image.MAX_IMAGE_PIXELS == 100
    assert not recwarn.list


def test_bad_and_odd_inputs_are_as_their_dictionaries_say(tmp_path):
    reasons = write_bad_inputs(tmp_path / "bad")
    assert (tmp_path / "bad" / "folder.jpg").is_dir()
    for name, reason in reasons.items():
        if reason is not RejectReason.NOT_A_FILE:
            with pytest.raises(PhotoError) as caught:
                read_header((tmp_path / "bad" / name).read_bytes())
            assert caught.value.reason is reason

    odd = write_odd_inputs(tmp_path / "odd")
    files = {path.relative_to(tmp_path / "odd").as_posix() for path in (tmp_path / "odd").rglob("*")
             if path.is_file()}  # fmt: skip
    assert files == set(odd)
    contents = [(tmp_path / "odd" / name).read_bytes() for name in odd]
    assert len(set(contents)) == len(contents)
    for data, accepted in zip(contents, odd.values(), strict=True):
        header = read_header(data)
        assert (header.width, header.height) == (accepted.width, accepted.height)
        assert ("position_invalid" in header.notes) is accepted.position_invalid
        if accepted.position is None:
            assert (header.latitude, header.longitude) == (None, None)
        else:
            found = (header.latitude, header.longitude)
            assert found == pytest.approx(accepted.position, abs=1e-9)
