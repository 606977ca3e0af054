"""What a photograph says of itself in EXIF: place, time, focal length, orientation."""

import math
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL.TiffImagePlugin import IFDRational

from tests.photos.bad_photos import (
    encode,
    gps_tags,
    texture,
)
from tests.photos.headers import B, G, header_with, packet, read_header
from vladmap.photos.headers.header import DOP_TO_METRES
from vladmap.photos.positions import finite, valid_positions


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
