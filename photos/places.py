"""Positions of the photographs of an evaluation, from file names with UTM coordinates.

The layout is `<root>/images/{train,val,test}/{database,queries}`, the names are
`@utm_east@utm_north@zone@letter@lat@lon@pano@tile@heading@pitch@roll@height@time@note@.jpg`; the
note is the condition (weather, time of day) of a photograph.

East and north repeat in each zone. Positions are therefore converted to earth-centred coordinates,
in which distances across the boundary of a zone are correct as well.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vladmap.geodesy.utm import BANDS, from_utm
from vladmap.geodesy.wgs84 import ecef_on_ellipsoid
from vladmap.photos.ids import is_image_name, is_systems_name
from vladmap.photos.positions import finite, is_valid_position
from vladmap.schemas.rejects import UserError

_EAST, _NORTH, _ZONE, _LETTER, _LATITUDE, _LONGITUDE = range(1, 7)
_HEADING, _NOTE = 9, 14
_FIELDS = 15


@dataclass(frozen=True, eq=False)
class Places:
    """N photographs: where each lies on disk and on earth.

    `positions` (N, 3) are earth-centred metres (WGS84, at height 0), `headings` (N,) degrees
    clockwise from north, NaN where unknown; a condition is "" where unknown. `drives` names the
    drive of each, "" where unknown, and `moments` (N,) orders those of one drive; without them no
    drive is known.
    """

    paths: tuple[Path, ...]
    positions: NDArray[np.float64]
    conditions: tuple[str, ...]
    headings: NDArray[np.float64]
    drives: tuple[str, ...] = ()
    moments: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Places:
        """The photographs of some rows, in their order."""
        chosen = np.asarray(rows, np.int64)
        return Places(
            tuple(self.paths[row] for row in chosen),
            self.positions[chosen],
            tuple(self.conditions[row] for row in chosen),
            self.headings[chosen],
            tuple(self.drives[row] for row in chosen) if self.drives else (),
            None if self.moments is None else self.moments[chosen],
        )


def read_places(folder: Path) -> Places:
    """The UTM-named photographs of a folder and all below it, sorted by path.

    Where a name has no zone, its latitude and longitude are used. Raises UserError for a folder
    without photographs, and for a name without a valid position.
    """
    paths = list_photos(folder)
    fields = [(path.name.split("@") + [""] * _FIELDS)[: _FIELDS + 1] for path in paths]
    zones = [_zone(path, row) for path, row in zip(paths, fields, strict=True)]
    first = np.full(len(paths), np.nan)
    second = np.full(len(paths), np.nan)
    for n, (row, zone) in enumerate(zip(fields, zones, strict=True)):
        keys = (_LATITUDE, _LONGITUDE) if zone == 0 else (_EAST, _NORTH)
        first[n], second[n] = (_number(paths[n], row[key]) for key in keys)
    for zone in sorted(set(zones) - {0}):
        rows = np.flatnonzero(np.array(zones) == zone)
        first[rows], second[rows] = from_utm(first[rows], second[rows], zone)
    bad = np.flatnonzero(~(np.abs(first) <= 90) | ~(np.abs(second) <= 360))
    if len(bad):
        raise UserError(f"{paths[bad[0]]}: east and north are no place in the UTM zone")
    return Places(
        tuple(paths),
        ecef_on_ellipsoid(first, second),
        tuple(row[_NOTE] for row in fields),
        np.array([_or_nan(row[_HEADING]) for row in fields]),
    )


def read_split(root: Path, split: str) -> tuple[Places, Places]:
    """(database, queries) of `<root>/images/<split>`; UserError where either is not there."""
    folder = root / "images" / split
    for part in ("database", "queries"):
        if not (folder / part).is_dir():
            splits = sorted(path.name for path in (root / "images").glob("*") if path.is_dir())
            raise UserError(
                f"{folder / part} is not there; splits of {root}: {', '.join(splits) or 'none'}"
            )
    return read_places(folder / "database"), read_places(folder / "queries")


def within(queries: Places, database: Places, metres: float) -> list[NDArray[np.int64]]:
    """For each query the rows of the database at most `metres` away, ascending."""
    tree = cKDTree(database.positions)
    neighbours = tree.query_ball_point(queries.positions, metres, return_sorted=True)
    return [np.array(rows, np.int64) for rows in neighbours]


def list_photos(folder: Path) -> list[Path]:
    """The photographs in a folder and all below it, sorted by path; UserError where none is."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of photographs")
    photos: list[Path] = []
    visited: set[str] = set()
    for at, subfolders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(at)
        if real in visited:  # a link to a folder above, or to one that was listed already
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not is_systems_name(name))
        photos += [
            Path(at, name) for name in names if is_image_name(name) and not is_systems_name(name)
        ]
    if not photos:
        raise UserError(f"{folder} holds no photographs")
    return sorted(photos, key=lambda path: path.relative_to(folder).as_posix())


def _zone(path: Path, fields: list[str]) -> int:
    """The zone of a name, negative in the south; 0 where latitude and longitude place it."""
    zone = re.fullmatch(r"0*([1-9]|[1-5][0-9]|60)([A-Za-z]?)", fields[_ZONE].strip())
    latitude, longitude = finite(fields[_LATITUDE]), finite(fields[_LONGITUDE])
    if zone is not None:
        letter = (fields[_LETTER].strip() or zone[2]).upper()
        if len(letter) == 1 and letter in BANDS:
            return int(zone[1]) * (1 if letter >= "N" else -1)
    if latitude is None or longitude is None or not is_valid_position(latitude, longitude):
        raise UserError(
            f"{path}: the name gives neither a UTM zone with its letter nor latitude and "
            "longitude: expected @east@north@zone@letter@lat@lon@...@.jpg"
        )
    return 0


def _number(path: Path, text: str) -> float:
    number = finite(text)
    if number is None:
        raise UserError(f"{path}: {text!r} in the name is not a coordinate")
    return number


def _or_nan(text: str) -> float:
    number = finite(text)
    return np.nan if number is None else number
