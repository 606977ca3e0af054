"""When photographs were taken (issue 19, 7)."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags

from tests.photos.bad_photos import encode, exif_block, gps_tags, texture
from tests.photos.headers import read_header
from vladmap.photos.headers.clocks import capture_time, offsets_of_neighbours, zones_of_neighbours
from vladmap.photos.headers.header import Header
from vladmap.photos.headers.xmp import read_xmp

CASES = Path(__file__).parents[1] / "cases" / "time"
RIGHT = json.loads((CASES / "right.json").read_text())
B = ExifTags.Base


def header(local: str | None, day: str | None = None, clock: tuple[float, ...] | None = None,
           longitude: float = 16.37, **details: str) -> Header:  # fmt: skip
    gps = gps_tags(48.2, longitude)
    if day is not None:
        gps[ExifTags.GPS.GPSDateStamp] = day
    if clock is not None:
        gps[ExifTags.GPS.GPSTimeStamp] = clock
    tags = {B[name]: value for name, value in details.items()}
    if local is not None:
        tags[B.DateTimeOriginal] = local
    return read_header(encode(texture(0), exif=exif_block(details=tags, gps=gps)))


EPOCH = datetime(2019, 11, 2, 16, 20, 31, tzinfo=UTC)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


@pytest.mark.parametrize("name", sorted(set(RIGHT) - {"no_fix_between.jpg"}))
def test_the_time_of_a_case_is_right(name):
    """Issue 19, 7: `time/`; no_fix_between needs its neighbours, see tests/transforms."""
    found = read_header((CASES / name).read_bytes())
    right = datetime.fromisoformat(RIGHT[name])
    assert abs(found.captured_at - right) <= timedelta(seconds=2)
    assert found.time_source == "gps_zone"


@pytest.mark.parametrize(
    ("local", "day", "clock", "longitude", "expected", "note"),
    [
        # Once, twice and the other way round the week number's 1,024.
        ("2024:03:09 08:15:00", "2004:07:24", (7, 15, 0), 16.0, utc(2024, 3, 9, 7, 15), "rollover"),
        ("2038:12:01 08:15:00", "1999:09:01", (7, 15, 0), 16, utc(2038, 12, 1, 7, 15), "rollover"),
        ("2020:03:09 08:15:00", "2039:10:24", (7, 15, 0), 16.0, utc(2020, 3, 9, 7, 15), "rollover"),
        # Before local midnight and after it, on both sides of Greenwich, with the local date.
        ("2020:07:05 00:10:00", "2020:07:05", (22, 10, 0), 16.0, utc(2020, 7, 4, 22, 10), "date"),
        ("2020:07:04 20:10:00", "2020:07:04", (1, 10, 0), -75.0, utc(2020, 7, 5, 1, 10), "date"),
        ("2020:07:04 23:59:59", "2020:07:04", (21, 59, 59), 16, utc(2020, 7, 4, 21, 59, 59), None),
        ("2020:12:31 23:59:59", "2021:01:01", (4, 59, 59), -75.0, utc(2021, 1, 1, 4, 59, 59), None),
        # Never set.
        ("2019:11:02 17:20:31", "1970:01:12", (16, 20, 31), 16, EPOCH, "date"),
        ("2019:11:02 17:20:31", "1980:01:06", (16, 20, 31), 16.0, EPOCH, "date"),
        ("2019:11:02 17:20:31", None, (16, 20, 31), 16.0, EPOCH, "date"),
        # Zones that are no whole hours, summer time, and the far east and west.
        ("2021:10:15 12:40:00", "2021:10:15", (6, 55, 0), 85.3, utc(2021, 10, 15, 6, 55), None),
        ("2021:10:15 12:40:00", "2021:10:15", (15, 10, 0), -53.0, utc(2021, 10, 15, 15, 10), None),
        ("2021:01:15 01:00:00", "2021:01:14", (12, 0, 0), 174.8, utc(2021, 1, 14, 12, 0), None),
        ("2021:01:15 01:00:00", "2001:05:31", (12, 0, 0), 174, utc(2021, 1, 14, 12, 0), "rollover"),
        ("2021:01:15 01:00:00", "1970:01:01", (11, 0, 0), -155.0, utc(2021, 1, 15, 11, 0), "date"),
        ("2021:01:15 01:00:00", "1970:01:01", (11, 0, 0), -176.0, utc(2021, 1, 15, 11, 0), "date"),
        # The camera's clock is half a day off, and the date of GPS right.
        ("2021:06:15 03:00:00", "2021:06:14", (13, 0, 0), 16.0, utc(2021, 6, 14, 13, 0), None),
    ],
)  # fmt: skip
def test_clocks_are_compared_modulo_a_day_and_the_camera_s_date_is_kept(
    local, day, clock, longitude, expected, note
):
    """Issue 19, 7: dates of GPS that are wrong, by kinds."""
    found = header(local, day, clock, longitude)
    assert found.captured_at == expected
    assert found.time_source == "gps_zone"
    notes = {"rollover": ("gps_week_rollover",), "date": ("gps_date_wrong",), None: ()}
    assert found.notes == notes[note]


@pytest.mark.parametrize(
    ("local", "day", "clock", "expected", "source"),
    [
        # The camera's clock is wrong by no whole quarter of an hour.
        ("2021:10:15 17:01:00", "2021:10:15", (14, 55, 46), utc(2021, 10, 15, 14, 55, 46), "gps"),
        ("2021:10:15 17:01:00", "2002:03:01", (14, 55, 46), utc(2021, 10, 15, 14, 55, 46), "gps"),
        ("2021:10:16 01:03:00", "2021:10:16", (22, 55, 46), utc(2021, 10, 15, 22, 55, 46), "gps"),
        ("2015:01:01 00:00:12", "2021:10:15", (14, 55, 46), utc(2021, 10, 15, 14, 55, 46), "gps"),
        ("2015:01:01 00:54:12", "2021:10:15", (14, 55, 46), utc(2021, 10, 15, 14, 55, 46), "gps"),
        ("1970:01:01 00:00:12", "2021:10:15", (14, 55, 46), utc(2021, 10, 15, 14, 55, 46), "gps"),
        # Without a camera's clock.
        (None, "2021:10:15", (14, 55, 46), utc(2021, 10, 15, 14, 55, 46), "gps"),
        (None, "1998:01:10", (14, 55, 46), utc(2017, 8, 26, 14, 55, 46), "gps"),
        (None, "1970:01:12", (14, 55, 46), None, None),
        (None, None, (14, 55, 46), None, None),
        ("1970:01:01 00:00:12", None, None, None, None),
        # Zeros of a receiver without a fix.
        ("2021:10:15 17:01:00", "1970:01:01", (0, 0, 0), utc(2021, 10, 15, 17, 1), "assumed_utc"),
        ("2021:10:15 17:00:00", None, (0, 0, 0), utc(2021, 10, 15, 17, 0), "assumed_utc"),
        ("2021:10:15 17:01:00", "9999:12:31", (24, 0, 1), utc(2021, 10, 15, 17, 1), "assumed_utc"),
        # Neither clock nor date fit.
        ("2021:10:15 17:07:00", "1970:01:12", (14, 0, 0), utc(2021, 10, 15, 17, 7), "assumed_utc"),
    ],
)
def test_each_time_tells_where_it_came_from(local, day, clock, expected, source):
    """Issue 19, 7."""
    found = header(local, day, clock)
    assert (found.captured_at, found.time_source) == (expected, source)


def test_a_written_offset_goes_before_the_gps_clock():
    found = header("2021:10:15 16:55:46", "2021:10:15", (14, 40, 0), OffsetTimeOriginal="+02:00")
    assert (found.captured_at, found.time_source) == (utc(2021, 10, 15, 14, 55, 46), "offset")
    assert found.captured_local == datetime(2021, 10, 15, 16, 55, 46)
    assert found.notes == ("clocks_disagree",)
    rolled = header("2021:10:15 16:55:46", "2002:03:01", (14, 55, 46), OffsetTimeOriginal="+02:00")
    assert (rolled.captured_at, rolled.notes) == (utc(2021, 10, 15, 14, 55, 46), ())


def test_xmp_s_clocks_are_compared_too():
    """Issue 19, 7: a date without a zone beside a GPS time, and an offset apart."""
    packet = (
        "<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description "
        "xmlns:exif='http://ns.adobe.com/exif/1.0/' exif:DateTimeOriginal='2024-03-09T08:15:00.5' "
        "exif:{}'/></rdf:RDF>"
    )
    rolled = read_xmp(packet.format("GPSTimeStamp='2004-07-24T07:15:01Z"))
    assert (rolled.captured_at, rolled.time_source) == (
        datetime(2024, 3, 9, 7, 15, 0, 500000, tzinfo=UTC), "gps_zone",
    )  # fmt: skip
    apart = read_xmp(packet.format("OffsetTimeOriginal='+05:45"))
    assert apart.captured_at == datetime(2024, 3, 9, 2, 30, 0, 500000, tzinfo=UTC)
    assert apart.time_source == "offset"


def test_clocks_of_two_sources_are_compared_too():
    """Issue 19, 7: the camera's in EXIF, a GPS clock with an overflown week number in XMP."""
    packet = (
        "<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description "
        "xmlns:exif='http://ns.adobe.com/exif/1.0/' exif:GPSTimeStamp='2004-07-24T07:15:01Z'/>"
        "</rdf:RDF>"
    )
    exif = exif_block(details={B.DateTimeOriginal: "2024:03:09 08:15:00"})
    found = read_header(encode(texture(0), exif=exif, xmp=packet.encode()))
    assert (found.captured_at, found.time_source) == (utc(2024, 3, 9, 7, 15), "gps_zone")
    assert found.notes == ("gps_week_rollover",)


@pytest.mark.parametrize("zone_min", range(-720, 841, 15))
def test_every_zone_is_found_at_every_hour_whatever_the_date_of_gps(zone_min):
    """Issue 19, 7: a property over zones, hours, and dates right, a day off, rolled over, unset."""
    zone = timedelta(minutes=zone_min)
    for hour in range(0, 24, 5):
        local = datetime(2022, 3, 1, hour, 31, 7)
        instant = local - zone
        clock = instant - datetime(instant.year, instant.month, instant.day)
        right = instant.date()
        for day in (right, right - timedelta(weeks=1024), right - timedelta(weeks=2048),
                    local.date(), date(1970, 1, 5), None):  # fmt: skip
            if zone_min <= -600 and day == local.date() != right:
                continue  # as right on an island that keeps the date of the other side
            found = capture_time([(local, None)], day, clock, zone_min / 4.0)
            assert found.at == instant.replace(tzinfo=UTC), (zone, hour, day)


def times(*seconds: float | None) -> np.ndarray:
    start = np.datetime64("2024-03-09T08:15:00", "us")
    micros = [np.timedelta64("NaT") if s is None else np.timedelta64(round(s * 1e6), "us")
              for s in seconds]  # fmt: skip
    return np.array([start + each for each in micros])


def test_a_frame_without_a_zone_has_that_of_the_nearest_frame_by_the_clock():
    """Issue 19, 7: a folder that holds winter and summer time."""
    half_a_year = 180 * 86_400.0
    local = times(0, 10, half_a_year, half_a_year + 20, None)
    instant = times(-3600, None, half_a_year - 7200, None, 5)
    assert offsets_of_neighbours(local, instant)[:4].tolist() == [3600, 3600, 7200, 7200]
    assert np.isnan(offsets_of_neighbours(local, instant)[4])
    nothing = offsets_of_neighbours(local, np.full(5, np.datetime64("NaT", "us")))
    assert np.isnan(nothing).all()


def test_a_wrong_clock_s_difference_holds_for_half_a_day():
    """Issue 19, 7: seven minutes fast, and set right the day after."""
    local = times(0, 10, 86_400.0)
    instant = times(-3600 - 437, None, None)
    found = offsets_of_neighbours(local, instant)
    assert found[1] == 3600 + 437
    assert np.isnan(found[2])


def test_zones_of_neighbours_leave_what_is_known():
    local = [datetime(2024, 3, 9, 8, 15, second) for second in (0, 4, 2)] + [None]
    at = [utc(2024, 3, 9, 7, 15, 0), utc(2024, 3, 9, 8, 15, 4), utc(2024, 3, 9, 7, 15, 2), None]
    sources = ["gps_zone", "assumed_utc", "offset", None]
    instants, named = zones_of_neighbours(at, local, sources)
    assert instants == [at[0], utc(2024, 3, 9, 7, 15, 4), at[2], None]
    assert named == ["gps_zone", "neighbours", "offset", None]
    alone = zones_of_neighbours(at[1:2], local[1:2], sources[1:2])
    assert alone == (at[1:2], ["assumed_utc"])
