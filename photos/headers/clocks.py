"""The capture time of a photograph, from the camera's clock, its time zone and the GPS clock.

A camera's clock shows local time, often without its zone. A GPS clock shows UTC, but its date may
be wrong: by a week number that overflows every 1,024 weeks, because it was never set, or because it
is the local date. So the two clocks are compared modulo 24 hours, and the camera's date is used.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vladmap.photos.headers.facts import clean_text, plausible_time, to_utc

OFFSET = "offset"
"""Camera clock, its zone written."""
GPS_ZONE = "gps_zone"
"""Camera clock, its zone the whole quarter hours between it and the GPS clock."""
GPS = "gps"
"""GPS clock: there is no camera clock, or it is wrong."""
MAPILLARY = "mapillary"
MANIFEST = "manifest"
NEIGHBOURS = "neighbours"
"""Camera clock, its zone that of the camera's other frames in the same folder."""
ASSUMED_UTC = "assumed_utc"
"""Camera clock of an unknown zone, taken for UTC: right within a drive, hours off outside."""

TOLERANCE = timedelta(minutes=2)
"""Clocks that differ by a whole zone offset and less than this agree."""

WEEK_ROLLOVER = timedelta(weeks=1024)
"""What a GPS week number of ten bits counts to."""

_SECONDS = timedelta(seconds=15)
_DAY = timedelta(days=1)
_QUARTER = timedelta(minutes=15)
_EAST_MOST, _WEST_MOST = timedelta(hours=14), timedelta(hours=-12)
# The largest zone offset, plus a date that is wrong by a day.
_SAME_DATE = _EAST_MOST + _DAY
# The largest difference of zone and solar time, with a margin: in western China it is four hours.
_FARTHEST_FROM_SUN = timedelta(hours=5)
_BOTH_DATES = -150.0
# The week number's first overflow; before it no camera wrote GPS dates.
_FIRST_ROLLOVER = datetime(1999, 8, 22)
# Epochs, which a clock shows that was never set: Unix (also west of Greenwich), FAT, Macintosh.
_UNSET = frozenset({date(1970, 1, 1), date(1969, 12, 31), date(1980, 1, 1), date(1904, 1, 1)})
# A clock that is off by something else than a zone may have been set in between.
_WRONG_CLOCK_HOLDS_S = 12 * 3600.0


@dataclasses.dataclass(frozen=True)
class CaptureTime:
    """`at` is the instant, in UTC; `local` what the camera's clock showed; None where not known.

    Without an instant the zone of `local` is unknown. `source` is where `at` came from: OFFSET,
    GPS_ZONE or GPS.
    """

    at: datetime | None = None
    local: datetime | None = None
    source: str | None = None
    notes: tuple[str, ...] = ()


def capture_time(
    cameras: Sequence[tuple[datetime, timedelta | None]],
    gps_day: date | None,
    gps_clock: timedelta | None,
    longitude: float | None,
) -> CaptureTime:
    """The time that a file's clocks give together.

    `cameras` are wall-clock times with their offsets from UTC, the best first; `gps_clock` is the
    time of day in UTC. A written offset counts first. Else the GPS clock gives the zone: the whole
    quarter hours, modulo 24 hours, between it and the camera's, whose date and fractions are kept.
    Where the clocks differ by something else the camera's is wrong, and the GPS clock stands, if
    its date is sound; one that is 1,024 weeks off, once, twice or the other way, or a day, is put
    right.
    `longitude`, in degrees, decides between zones a day apart.

    Notes: `gps_week_rollover`, `gps_date_wrong`, `camera_clock_wrong`, `camera_clock_unset`,
    `clocks_disagree` (the GPS clock contradicts, and is not believed).
    """
    usable = [camera for camera in cameras if camera[0].date() not in _UNSET]
    notes = ["camera_clock_unset"] if cameras and not usable else []
    if not gps_clock and (gps_day is None or gps_day < _FIRST_ROLLOVER.date()):
        # Zeros all over: no fix.
        gps_clock = None
    gps = None if gps_clock is None else _datetime(gps_day, gps_clock)
    if not usable:
        return _by_gps_alone(gps, notes)
    local, offset = usable[0]
    if offset is not None:
        at = local - offset
        if gps_clock is not None and abs(_within_half_a_day(at - _midnight(at) - gps_clock)) > (
            TOLERANCE
        ):
            notes.append("clocks_disagree")
        return CaptureTime(to_utc(at, timedelta()), local, OFFSET, tuple(notes))
    if gps_clock is None:
        return CaptureTime(None, local, None, tuple(notes))

    near = None if gps is None else _near(gps, local)
    sound = gps is not None and gps >= _FIRST_ROLLOVER
    if near is not None and near != gps:
        notes.append("gps_week_rollover")
    # Where the dates contradict each other, the clocks must agree to seconds to confirm the date of
    # the camera; by chance that happens once in thirty cases.
    tolerance = _SECONDS if near is None and sound else TOLERANCE
    zone = _zone(local, gps_clock, near, longitude, tolerance)
    if zone is not None and near is None and longitude is not None:
        # Without a matching date the clocks may agree by chance: compare with solar time.
        beside = _within_half_a_day(zone - timedelta(hours=longitude / 15.0))
        zone = zone if abs(beside) <= _FARTHEST_FROM_SUN else None
    if zone is not None:
        at = local - zone
        if near is None or abs(near - at) > timedelta(hours=12):
            notes.append("gps_date_wrong")
        return CaptureTime(to_utc(at, timedelta()), local, GPS_ZONE, tuple(notes))
    if near is None and sound and gps is not None:
        return CaptureTime(to_utc(gps, timedelta()), local, GPS, (*notes, "camera_clock_wrong"))
    if near is None:
        # Neither the date nor the clock fits the camera's: nothing speaks for them.
        return CaptureTime(None, local, None, (*notes, "clocks_disagree"))
    notes.append("camera_clock_wrong")
    right = near
    if longitude is not None:
        # Where the receiver wrote the local date with UTC time, it is a day off from solar time.
        sun = local - timedelta(hours=longitude / 15.0)
        if abs(near - sun) > timedelta(hours=15):
            right = min((near - _DAY, near, near + _DAY), key=lambda each: abs(each - sun))
            notes.append("gps_date_wrong")
    return CaptureTime(to_utc(right, timedelta()), local, GPS, tuple(notes))


def parse_offset(value: Any) -> timedelta | None:
    """Offset from UTC of "+02:00", "-0330" or "Z"; None for anything else."""
    text = clean_text(value) or ""
    if text in ("Z", "z"):
        return timedelta(0)
    match = re.fullmatch(r"([+-])(\d\d):?(\d\d)", text)
    if match is None or int(match[2]) > 14 or int(match[3]) > 59:
        return None
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return -offset if match[1] == "-" else offset


def zones_of_neighbours(
    captured_at: Sequence[datetime | None],
    captured_local: Sequence[datetime | None],
    time_source: Sequence[str | None],
) -> tuple[list[datetime | None], list[str | None]]:
    """Instants and their sources for n frames of one camera and folder.

    A frame whose zone is ASSUMED_UTC takes what its camera's clock was ahead of UTC in the frames
    of which that is known (`offsets_of_neighbours`), and is of NEIGHBOURS then.
    """
    instants, sources = list(captured_at), list(time_source)
    assumed = np.array([source == ASSUMED_UTC for source in sources])
    if not assumed.any() or assumed.all():
        return instants, sources
    local = np.array([_bare(moment) for moment in captured_local], "datetime64[us]")
    instant = np.array([_bare(moment) for moment in captured_at], "datetime64[us]")
    instant[assumed] = np.datetime64("NaT")
    offsets = offsets_of_neighbours(local, instant)
    for row in np.flatnonzero(assumed & ~np.isnan(offsets)).tolist():
        clock = captured_local[row]
        if clock is not None:
            instants[row] = to_utc(clock, timedelta(seconds=float(offsets[row])))
            sources[row] = NEIGHBOURS
    return instants, sources


def offsets_of_neighbours(
    local: NDArray[np.datetime64], instant: NDArray[np.datetime64]
) -> NDArray[np.float64]:
    """(n,) seconds by which the clock of one camera is ahead of UTC in each of its frames.

    `local` (n,) is what the camera's clock showed, `instant` (n,) UTC; NaT where unknown. A frame
    with both has its own difference. A frame with only a local time takes the difference of the
    nearest frame in local time that has both (of two equally near ones the earlier). A difference
    that is no zone offset comes from a wrong clock, and is used for half a day only. NaN where none
    applies.
    """
    known = ~(np.isnat(local) | np.isnat(instant))
    seconds = np.full(len(local), np.nan)
    difference = (local - instant).astype("timedelta64[us]")
    seconds[known] = difference[known].astype(np.int64) / 1e6
    unknown = np.flatnonzero(~np.isnat(local) & ~known)
    if not known.any() or not unknown.size:
        return seconds
    order = np.lexsort((seconds[known], local[known]))
    clocks = local[known][order].astype("datetime64[us]").astype(np.int64)
    offsets = seconds[known][order]
    clock = local[unknown].astype("datetime64[us]").astype(np.int64)
    behind = np.clip(np.searchsorted(clocks, clock), 0, len(clocks) - 1)
    before = np.clip(behind - 1, 0, None)
    nearest = np.where(
        np.abs(clocks[before] - clock) <= np.abs(clocks[behind] - clock), before, behind
    )
    gap_s = np.abs(clocks[nearest] - clock) / 1e6
    offset = offsets[nearest]
    quarters = np.round(offset / 900.0) * 900.0
    zone = (offset <= _EAST_MOST.total_seconds()) & (offset >= _WEST_MOST.total_seconds())
    zone &= np.abs(offset - quarters) < 2.0
    wrong = np.where(gap_s <= _WRONG_CLOCK_HOLDS_S, offset, np.nan)
    seconds[unknown] = np.where(zone, quarters, wrong)
    return seconds


def _bare(moment: datetime | None) -> datetime | None:
    """In UTC, without its zone, as numpy takes it."""
    if moment is None or moment.tzinfo is None:
        return moment
    return moment.astimezone(UTC).replace(tzinfo=None)


def _by_gps_alone(gps: datetime | None, notes: list[str]) -> CaptureTime:
    if gps is None:
        return CaptureTime(notes=tuple(notes))
    if gps < _FIRST_ROLLOVER:
        gps += WEEK_ROLLOVER
        if gps < _FIRST_ROLLOVER:
            return CaptureTime(notes=(*notes, "gps_date_wrong"))
        notes.append("gps_week_rollover")
    return CaptureTime(to_utc(gps, timedelta()), None, GPS, tuple(notes))


def _datetime(day: date | None, clock: timedelta) -> datetime | None:
    midnight = None if day is None else plausible_time(datetime(day.year, day.month, day.day))
    return None if midnight is None else midnight + clock


def _near(gps: datetime, local: datetime) -> datetime | None:
    """The GPS time as it stands or whole week counts off, where that is within a day of `local`."""
    for turns in (0, 1, 2, -1):
        moved = gps + turns * WEEK_ROLLOVER
        if abs(moved - local) <= _SAME_DATE:
            return moved
    return None


def _zone(
    local: datetime,
    gps_clock: timedelta,
    gps: datetime | None,
    longitude: float | None,
    tolerance: timedelta,
) -> timedelta | None:
    """The zone of a camera's clock, None where the clocks differ by no whole quarter of an hour."""
    difference = (local - _midnight(local) - gps_clock) % _DAY
    rounded = round(difference / _QUARTER) * _QUARTER
    if abs(difference - rounded) > tolerance:
        return None
    zones = [zone for zone in (rounded, rounded - _DAY) if _WEST_MOST <= zone <= _EAST_MOST]
    if len(zones) == 1:
        return zones[0]
    # 12 to 14 hours ahead, or 12 to 10 behind.
    dated = [zone for zone in zones if gps is not None and abs(local - zone - gps) <= tolerance]
    if longitude is None:
        return (dated or sorted(zones, key=abs))[0]
    by_sun = sorted(zones, key=lambda zone: abs(zone - timedelta(hours=longitude / 15.0)))
    apart = abs(by_sun[0] - timedelta(hours=longitude / 15.0))
    # East of the date line lie islands on both its dates; elsewhere the sun is never far.
    if dated and (longitude < _BOTH_DATES or apart > timedelta(hours=4)):
        return dated[0]
    return by_sun[0]


def _midnight(moment: datetime) -> datetime:
    return datetime(moment.year, moment.month, moment.day)


def _within_half_a_day(difference: timedelta) -> timedelta:
    """The difference modulo 24 hours, from -12 to 12 hours."""
    return (difference + _DAY / 2) % _DAY - _DAY / 2
