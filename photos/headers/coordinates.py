"""Parses latitudes and longitudes in the notations that are in use: text to signed degrees."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vladmap.photos.positions import finite

_LONGEST = 100
_LETTERS = {"latitude": "NS", "longitude": "EW"}
_DMS = re.compile(
    r"(?P<sign>[+-]?)(?P<degrees>\d{1,3})(?:/1)?[,;: ]+(?P<minutes>\d+(?:\.\d+)?(?:/\d+)?)"
    r"(?:[,;: ]+(?P<seconds>\d+(?:\.\d+)?(?:/\d+)?))?(?:,(?P<fraction>\d+))?"
)
_COMMA = re.compile(r"[+-]?\d{1,3},\d{3,}")
_MARKS = re.compile("[\u00b0\u00ba'\"\u2032\u2033\u2019\u201d]|deg(?:rees)?", re.IGNORECASE)


@dataclass(frozen=True)
class Coordinate:
    """One coordinate: unsigned degrees, and the side of the equator or of Greenwich it lies on.

    `side` is 1 for north or east, -1 for south or west, None where it is unknown. A decimal number
    alone has its side by its sign (`signed`); without a sign it is positive.
    """

    degrees: float
    side: int | None
    signed: bool = False


def read_coordinate(text: str | None, reference: str | None, axis: str) -> Coordinate | None:
    """A coordinate from its text and the reference that is written apart, if any.

    Understands "48,51.5N", "48,51,30N", "48 51 30.5 N", "48 deg 51' 30.5\" N", rationals for the
    parts, "+48.858", "48.858" with a reference, and decimal commas where they can be nothing else.
    `axis` is `latitude` or `longitude`. None for what cannot be read, and for a letter, a sign and
    a reference that disagree or are of the other axis: any of them may be the wrong one.
    """
    letters = _LETTERS[axis]
    if text is None or len(text) > _LONGEST:
        return None
    text = _MARKS.sub(" ", text).strip().upper()
    sides: set[int] = set()
    letter = re.search(r"[A-Z]+", text)
    if letter is not None:
        text = (text[: letter.start()] + text[letter.end() :]).strip(" ,;")
    for side_text in (letter[0] if letter else "", (reference or "").strip().upper()):
        if not side_text:
            continue
        side = _side(side_text, letters)
        if side is None:
            return None
        sides.add(side)
    read = _degrees(text)
    if read is None:
        return None
    degrees, sign = read
    if sign:
        sides.add(-1 if sign == "-" else 1)
    if len(sides) > 1:
        return None
    bare = letter is None and not reference
    parts = re.search(r"\d[,;: ]+\d", text) is not None and not _COMMA.fullmatch(text)
    if bare and parts and not sign:
        return Coordinate(degrees, None)
    return Coordinate(degrees, sides.pop() if sides else 1, signed=bare)


def read_position(
    latitude: str | None,
    longitude: str | None,
    latitude_reference: str | None = None,
    longitude_reference: str | None = None,
) -> tuple[float, float] | None:
    """(latitude, longitude) in signed degrees, None where the texts do not give both for certain.

    A writer that gives one of them a letter or a reference leaves the other without a side where it
    gives it none.
    """
    read = (
        read_coordinate(latitude, latitude_reference, "latitude"),
        read_coordinate(longitude, longitude_reference, "longitude"),
    )
    lat, lon = read
    if lat is None or lon is None or lat.side is None or lon.side is None:
        return None
    for one, other, text in ((lat, lon, latitude), (lon, lat, longitude)):
        unsigned = one.signed and not (text or "").strip().startswith(("+", "-"))
        if unsigned and not other.signed:
            return None
    return lat.degrees * lat.side, lon.degrees * lon.side


def _side(text: str, letters: str) -> int | None:
    """1 or -1 of "N", "NORTH", "NORTH LATITUDE"; None for what is no side of this axis."""
    names = {"N": "NORTH", "S": "SOUTH", "E": "EAST", "W": "WEST"}
    for letter, side in zip(letters, (1, -1), strict=True):
        if text == letter or text.startswith(names[letter]):
            return side
    return None


def _degrees(text: str) -> tuple[float, str] | None:
    """(unsigned degrees, the sign written) of a number without letters."""
    if _COMMA.fullmatch(text):
        text = text.replace(",", ".")
    number = finite(text) if re.fullmatch(r"[+-]?[\d./E]+", text) else None
    if number is not None:
        sign = text[0] if text[0] in "+-" else ""
        return abs(number), sign
    match = _DMS.fullmatch(text)
    if match is None:
        return None
    minutes, seconds = finite(match["minutes"]), finite(match["seconds"] or "0")
    whole = match["seconds"]
    if minutes is None or seconds is None:
        return None
    if match["fraction"] is not None:
        # "48,12,30,25": only a decimal comma makes a fourth number.
        if whole is None or not whole.isdigit():
            return None
        seconds += float(f"0.{match['fraction']}")
    elif whole is not None and whole.isdigit() and len(whole) > 2 and match["minutes"].isdigit():
        # "48,12,5083": no seconds have more than two digits before their point.
        minutes, seconds = minutes + float(f"0.{whole}"), 0.0
    if minutes > 60.0 or seconds > 60.0:
        return None
    return int(match["degrees"]) + minutes / 60.0 + seconds / 3600.0, match["sign"]
