"""Reads the common layouts of place recognition data sets into one type, `EvaluationSet`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from vladmap.geodesy.wgs84 import ecef_on_ellipsoid
from vladmap.photos.places import (
    Places,
    list_photos,
    read_places,
    read_split,
    within,
)
from vladmap.photos.positions import valid_positions
from vladmap.photos.sequences import natural_key
from vladmap.schemas.rejects import UserError

MSLS_VALIDATION = ("cph", "sf")
"""Cities of MSLS's train_val that are its validation set; the others are for training."""

_NOT_ANY = (
    "expected <root>/images/<split>/{database,queries} with UTM names, MSLS, a CSV of coordinates, "
    "an atlas, or the folders database/ and queries/"
)


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Queries, the database that is searched for them, and the positives of each query.

    A database row is a positive at most `metres` from the query, or at most `frames` from its place
    in the sequence; the other of the two is None. `positives` has the rows for each query,
    ascending. `skipped` counts the photographs that were left out, by reason. With `leave_one_out`,
    queries and database are the same photographs, and none is its own match.
    """

    layout: str
    database: Places
    queries: Places
    positives: list[NDArray[np.int64]]
    metres: float | None = None
    frames: int | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)
    leave_one_out: bool = False

    @property
    def protocol(self) -> str:
        """The criterion for a positive, in words."""
        if self.metres is not None:
            return f"within {self.metres:g} m"
        return f"within {self.frames} frames" if self.frames else "in the same frame"

    def near(self, best: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether `rows` (Q, K) of the database are at the place of its rows `best` (Q,)."""
        if self.metres is None:
            return np.abs(rows - best[:, None]) <= (self.frames or 0)
        places = self.database.positions
        apart = places[rows] - places[best][:, None]
        return np.linalg.norm(apart, axis=2) <= self.metres

    def distances_m(
        self, queries: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Metres between queries (n,) and rows of the database (n,); NaN without positions."""
        apart = self.queries.positions[queries] - self.database.positions[rows]
        return np.linalg.norm(apart, axis=1)


def detect(source: Path) -> str:
    """Which of LAYOUTS a file or folder has; UserError where it has none."""
    if source.is_file() and source.suffix.lower() == ".csv":
        return "csv"
    if not source.exists():
        raise UserError(f"{source} does not exist: {_NOT_ANY}")
    if (source / "atlas.json").exists():
        return "atlas"
    if any((source / "images").glob("*/database")):
        return "utm"
    if any(source.glob("database/raw.csv")) or any(source.glob("*/*/database/raw.csv")):
        return "msls"
    if (source / "database").is_dir() and (source / "queries").is_dir():
        first = list_photos(source / "database")[0]
        return "utm" if first.name.startswith("@") else "frames"
    raise UserError(f"{source} has no layout that is known: {_NOT_ANY}")


def read_utm(root: Path, split: str, metres: float) -> EvaluationSet:
    """`<root>/images/<split>/{database,queries}`, or these two folders in `root` itself."""
    if (root / "images").is_dir():
        database, queries = read_split(root, split)
    else:
        database, queries = (read_places(root / part) for part in ("database", "queries"))
    return _by_distance("utm", database, queries, metres, {})


def read_frames(root: Path, frames: int) -> EvaluationSet:
    """`<root>/{database,queries}`, whose files correspond in the order of their names.

    Digits in names are compared as numbers. Raises UserError where one folder has more files than
    the other: a missing frame would shift the correspondence of all later ones.
    """
    sides = [sorted(list_photos(root / part), key=_frame_key) for part in ("database", "queries")]
    if len(sides[0]) != len(sides[1]):
        raise UserError(
            f"{root}: {len(sides[0])} files in database/ and {len(sides[1])} in queries/, so they "
            "do not correspond frame by frame"
        )
    database, queries = (_one_drive(_without_positions(paths)) for paths in sides)
    rows = np.arange(len(database))
    positives = [rows[max(0, row - frames) : row + frames + 1] for row in range(len(queries))]
    return EvaluationSet("frames", database, queries, positives, frames=frames)


def read_csv(path: Path, metres: float) -> EvaluationSet:
    """A table of path, latitude and longitude (degrees), with condition, heading and side if known.

    `sequence` and `frame`, where both are there, name a photograph's drive and its place in it.
    Paths are relative to the table's folder. `side` is `database` or `query`; without that column
    each photograph is a query to all the others. Rows without a valid position are skipped and
    counted. Raises UserError for a file that is no such table.
    """
    table = _table(path, ("path", "latitude", "longitude"))
    skipped: dict[str, int] = {}
    table = _with_positions(table, skipped).sort_values("path", kind="stable")
    sides = None
    if "side" in table:
        sides = table["side"].str.strip().str.lower().replace("queries", "query")
        unknown = sorted(set(sides) - {"database", "query"})
        if unknown:
            raise UserError(f"{path}: side is database or query, not {unknown[0]!r}")
    places = _places(table, [path.parent / name for name in table["path"]])
    if sides is None:
        return _leave_one_out(path, places, metres, skipped)
    database, queries = (
        places.take(np.flatnonzero(sides == side)) for side in ("database", "query")
    )
    return _by_distance("csv", database, queries, metres, skipped)


def read_msls(root: Path, split: str, metres: float) -> EvaluationSet:
    """Mapillary Street-Level Sequences (Warburg et al., CVPR 2020), or one of its city folders.

    `split` is `val` (cities MSLS_VALIDATION of train_val), `train` (its other cities) or `test`.
    The condition is night or day. Panoramas and rows without a position are skipped and counted.
    """
    skipped: dict[str, int] = {}
    sides = []
    for side in ("database", "query"):
        parts = [_msls_side(city / side, skipped) for city in _cities(root, split)]
        sides.append(_joined([part for part in parts if len(part)]))
    return _by_distance("msls", sides[0], sides[1], metres, skipped)


def split_by_time(
    images: pa.Table, metres: float, since: datetime | None = None, share: float = 0.2
) -> EvaluationSet:
    """An atlas's images, schemas.tables.IMAGES: those captured from `since` on are the queries.

    Without `since`, the queries are the last `share` of the images by capture time. Exact
    duplicates, and images without a time or a position, are skipped and counted.
    """
    table = images.sort_by("uri").to_pandas()
    skipped: dict[str, int] = {}
    table = _selected(table, table["duplicate_of"].isna(), "exact duplicate", skipped)
    table = _selected(table, table["captured_at"].notna(), "no capture time", skipped)
    table = _with_positions(table, skipped)
    remote = [uri for uri in table["uri"] if "://" in uri]
    if remote:
        raise UserError(f"{remote[0]} is remote: only photographs on local disk are evaluated")
    if table.empty:
        raise UserError("the atlas has no images with both a time and a position to split by time")
    moments = table["captured_at"]
    if since is None:
        last = max(1, round(share * len(table)))
        since = moments.sort_values().iloc[-last]
    later = np.asarray(moments >= since)
    names = {"heading_deg": "heading", "sequence_id": "sequence", "sequence_index": "frame"}
    table = table.rename(columns=names)
    places = _places(table, [Path(uri) for uri in table["uri"]])
    if later.all() or not later.any():
        raise UserError(
            f"no image was captured {'before' if later.all() else 'from'} {since:%Y-%m-%d %H:%M:%S}"
            f"{'' if later.all() else ' on'}; the times run from {moments.min()} to {moments.max()}"
        )
    database, queries = (places.take(np.flatnonzero(rows)) for rows in (~later, later))
    return _by_distance("atlas", database, queries, metres, skipped)


def _by_distance(
    layout: str, database: Places, queries: Places, metres: float, skipped: dict[str, int]
) -> EvaluationSet:
    for name, part in (("database", database), ("queries", queries)):
        if not len(part):
            raise UserError(f"no photographs are left for the {name}: {_skipped_text(skipped)}")
    positives = within(queries, database, metres)
    return EvaluationSet(layout, database, queries, positives, metres=metres, skipped=skipped)


def _leave_one_out(
    path: Path, places: Places, metres: float, skipped: dict[str, int]
) -> EvaluationSet:
    if len(places) < 2:
        raise UserError(f"{path}: {len(places)} photographs with a position, at least 2 are needed")
    near = within(places, places, metres)
    positives = [rows[rows != own] for own, rows in enumerate(near)]
    return EvaluationSet(
        "csv", places, places, positives, metres=metres, skipped=skipped, leave_one_out=True
    )


def _skipped_text(skipped: Mapping[str, int]) -> str:
    text = ", ".join(f"{reason}: {count}" for reason, count in sorted(skipped.items()))
    return f"skipped {text}" if text else "none were there"


def _frame_key(path: Path) -> tuple[str, str]:
    return natural_key(path.as_posix()), path.as_posix()


def _without_positions(paths: list[Path]) -> Places:
    count = len(paths)
    nowhere = np.full((count, 3), np.nan)
    return Places(tuple(paths), nowhere, ("",) * count, np.full(count, np.nan))


def _one_drive(places: Places) -> Places:
    """The photographs as those of one drive, in their order."""
    return replace(
        places, drives=("frames",) * len(places), moments=np.arange(len(places), dtype=np.float64)
    )


def _table(path: Path, needed: tuple[str, ...]) -> pd.DataFrame:
    """A CSV with comma, semicolon or tab; values are text, names of columns in lower case."""
    try:
        text = path.read_text("utf-8-sig")
        head = text.partition("\n")[0]
        table = pd.read_csv(path, sep=max(",;\t", key=head.count), dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable CSV: {str(error).splitlines()[0]}") from error
    table.columns = [str(name).strip().lower() for name in table.columns]
    missing = [name for name in needed if name not in table]
    if missing:
        raise UserError(
            f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(table.columns)}"
        )
    return table


def _with_positions(table: pd.DataFrame, skipped: dict[str, int]) -> pd.DataFrame:
    """The rows with a position, their latitude and longitude as numbers."""
    degrees = {
        name: pd.to_numeric(table[name], errors="coerce") for name in ("latitude", "longitude")
    }
    table = table.assign(**degrees)
    placed = valid_positions(table["latitude"].to_numpy(), table["longitude"].to_numpy())
    return _selected(table, placed, "no position", skipped)


def _selected(
    table: pd.DataFrame, keep: NDArray[np.bool_] | pd.Series, reason: str, skipped: dict[str, int]
) -> pd.DataFrame:
    lost = int((~np.asarray(keep, bool)).sum())
    if lost:
        skipped[reason] = skipped.get(reason, 0) + lost
    return table[np.asarray(keep, bool)]


def _places(table: pd.DataFrame, paths: list[Path]) -> Places:
    """Places of the rows of `table`, whose photographs are `paths`."""
    conditions = table["condition"] if "condition" in table else [""] * len(table)
    headings = np.full(len(table), np.nan)
    if "heading" in table:
        headings = pd.to_numeric(table["heading"], errors="coerce").to_numpy(np.float64)
    positions = ecef_on_ellipsoid(table["latitude"].to_numpy(), table["longitude"].to_numpy())
    places = Places(tuple(paths), positions, tuple(conditions), headings)
    if "sequence" not in table or "frame" not in table:
        return places
    # A photograph whose place in its drive is not known is in none.
    moments = pd.to_numeric(table["frame"], errors="coerce").to_numpy(np.float64)
    drives = table["sequence"].fillna("").astype(str).where(np.isfinite(moments), "")
    return replace(places, drives=tuple(drives), moments=np.nan_to_num(moments))


def _cities(root: Path, split: str) -> list[Path]:
    if (root / "database" / "raw.csv").exists():
        return [root]
    folder = root / ("test" if split == "test" else "train_val")
    cities = sorted(path.parents[1] for path in folder.glob("*/database/raw.csv"))
    if split != "test":
        cities = [city for city in cities if (city.name in MSLS_VALIDATION) == (split == "val")]
    if split not in ("train", "val", "test") or not cities:
        raise UserError(
            f"{root} has no cities of the split {split!r} in {folder.name}/: the splits are train, "
            f"val ({', '.join(MSLS_VALIDATION)}) and test; or give the folder of one city"
        )
    return cities


def _msls_side(folder: Path, skipped: dict[str, int]) -> Places:
    table = _table(folder / "raw.csv", ("key", "lon", "lat"))
    table = table.rename(columns={"lat": "latitude", "lon": "longitude", "ca": "heading"})
    processed = folder / "postprocessed.csv"
    if processed.exists():
        night = _table(processed, ("key", "night")).drop_duplicates("key").set_index("key")["night"]
        conditions = night.str.lower().map({"true": "night", "false": "day"})
        table["condition"] = table["key"].map(conditions).fillna("")
    drives = folder / "seq_info.csv"
    if drives.exists():
        known = _table(drives, ("key", "sequence_key", "frame_number")).drop_duplicates("key")
        known = known.set_index("key").rename(
            columns={"sequence_key": "sequence", "frame_number": "frame"}
        )
        table = table.join(known[["sequence", "frame"]], on="key")
    if "pano" in table:
        table = _selected(table, table["pano"].str.lower() != "true", "panorama", skipped)
    table = _with_positions(table, skipped).sort_values("key", kind="stable")
    return _places(table, [folder / "images" / f"{key}.jpg" for key in table["key"]])


def _joined(parts: list[Places]) -> Places:
    if not parts:
        return _without_positions([])
    return Places(
        tuple(path for part in parts for path in part.paths),
        np.concatenate([part.positions for part in parts]),
        tuple(condition for part in parts for condition in part.conditions),
        np.concatenate([part.headings for part in parts]),
        *_joined_drives(parts),
    )


def _joined_drives(parts: list[Places]) -> tuple[tuple[str, ...], NDArray[np.float64] | None]:
    """The drives of several lists; those of a list without any are unknown."""
    if not any(part.drives for part in parts):
        return (), None
    drives = [part.drives or ("",) * len(part) for part in parts]
    moments = [np.zeros(len(part)) if part.moments is None else part.moments for part in parts]
    return tuple(name for part in drives for name in part), np.concatenate(moments)
