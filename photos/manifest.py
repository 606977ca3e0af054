"""Manifests: tables that name photographs and may say where, when and by what they were taken."""

from __future__ import annotations

import dataclasses
import difflib
import io
import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import pyproj
import shapely

from vladmap.photos.clocks import MANIFEST as MANIFEST_TIME
from vladmap.photos.header import Header
from vladmap.photos.positions import ALTITUDE_RANGE_M, angle, between, finite, is_valid_position
from vladmap.photos.projection import PERSPECTIVE, PROJECTIONS
from vladmap.schemas.rejects import UserError

MANIFEST = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("latitude", pa.float64()),
        pa.field("longitude", pa.float64()),
        pa.field("altitude", pa.float64()),
        pa.field("gps_accuracy_m", pa.float64()),
        pa.field("heading_deg", pa.float64()),
        pa.field("captured_at", pa.timestamp("us", tz="UTC")),
        pa.field("sequence_id", pa.string()),
        pa.field("make", pa.string()),
        pa.field("model", pa.string()),
        pa.field("focal_px", pa.float64()),
        pa.field("projection", pa.string()),
    ]
)
"""What `read_manifest` returns: every column, null where the manifest is silent."""

ALIASES: dict[str, tuple[str, ...]] = {
    "uri": ("path", "filename", "file", "filepath", "image", "imagepath", "sourcefile", "photo"),
    "latitude": ("lat", "gpslatitude", "gpslat", "latitudedeg", "latdeg"),
    "longitude": (
        *("lon", "lng", "long", "gpslongitude", "gpslon", "gpslng", "gpslong"),
        *("longitudedeg", "londeg", "lngdeg"),
    ),
    "altitude": ("alt", "gpsaltitude", "gpsalt", "altitudem", "elevation", "ele"),
    "gps_accuracy_m": ("gpsaccuracy", "gpshpositioningerror", "horizontalaccuracy"),
    "heading_deg": ("heading", "compassangle", "gpsimgdirection", "bearing", "azimuth"),
    "captured_at": ("capturetime", "timestamp", "capturedatetime"),
    "sequence_id": ("sequence",),
    "make": ("cameramake",),
    "model": ("cameramodel",),
    "focal_px": ("focallengthpx",),
}
"""Other names under which a column is found, as `_plain` makes them; the first that is there wins.

Not those of exiftool's times, which have no zone.
"""

_MEANT = {"x": "longitude", "y": "latitude", "z": "altitude"}
_REFS = {"latitude": ("gpslatituderef", "S"), "longitude": ("gpslongituderef", "W")}
_NOTES = b"vladmap:notes"

MANIFEST_SUFFIXES = ("csv", "parquet", "geoparquet", "geojson", "json")

_GEOMETRY = "geometry"
_CRS84 = "OGC:CRS84"
_NOT_POINTS = "{name}: every geometry of a manifest is a point with two or three coordinates"


def is_manifest_name(name: str) -> bool:
    """Whether a file name ends like a manifest's, in any case."""
    return name.rpartition(".")[2].lower() in MANIFEST_SUFFIXES


def read_manifest(name: str, data: bytes) -> pa.Table:
    """The rows of a manifest, in its order, with the columns and types of MANIFEST.

    `name` decides the format by its ending: CSV (comma, semicolon or tab, a header line, UTF-8),
    Parquet, GeoParquet, GeoJSON (a FeatureCollection). A `uri` is returned as written; a relative
    one is relative to the manifest's folder, which the caller knows. Where there are no latitude
    and longitude columns, a `geometry` of points gives them: WKB by GeoParquet, reprojected to
    OGC:CRS84 where the file names another system; WKT in CRS84 in a CSV. Times are ISO 8601 or
    timestamps, without a zone UTC. Positions that cannot be used are kept here as they stand:
    `override` judges them. Columns that are not read are named by `manifest_notes`.

    Raises UserError for a file that does not parse, a missing `uri` column (the message names the
    columns that are there), an empty or repeated uri, a value that is not of its column's type,
    geometries that are not points or whose reference system is unknown, and projections that
    there are none of.
    """
    suffix = name.rpartition(".")[2].lower()
    if suffix not in MANIFEST_SUFFIXES:
        raise UserError(
            f"{name}: a manifest ends in {', '.join('.' + known for known in MANIFEST_SUFFIXES)}"
        )
    if not data:
        raise UserError(f"{name}: the manifest is empty")
    try:
        if suffix == "csv":
            table = _read_csv(data)
        elif suffix in ("parquet", "geoparquet"):
            table = _read_parquet(name, data)
        else:
            table = _read_geojson(name, data)
    except (pa.ArrowException, ValueError, RecursionError, UnicodeError, OSError) as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{name}: not a readable {suffix} manifest: {line}") from error
    return _conform(name, table)


def override(header: Header, row: Mapping[str, Any]) -> Header:
    """The header with a manifest row's values in place of the photograph's own.

    Nulls leave the header as it is; so does a value that cannot be used, with a note of its
    column's name and `_invalid`, or `position_invalid` where the header then has no position
    either. A heading is an angle, in whatever turn.
    """
    changes: dict[str, Any] = {}
    unusable: set[str] = set()
    for column, field in (("make", "make"), ("model", "model"), ("sequence_id", "sequence")):
        if row.get(column):
            changes[field] = row[column]
    if row.get("captured_at") is not None:
        changes["captured_at"], changes["time_source"] = row["captured_at"], MANIFEST_TIME
    for column, low, high in (
        ("altitude", *ALTITUDE_RANGE_M),
        ("gps_accuracy_m", 1e-3, 1e5),
        ("focal_px", 1.0, 1e6),
    ):
        if (number := between(row.get(column), low, high)) is not None:
            changes[column] = number
        elif row.get(column) is not None:
            unusable.add(f"{column}_invalid")
    # Ten turns: beyond lie the numbers that stand for none, such as -9999.
    if (turned := angle(row.get("heading_deg"), -3600.0, 3600.0)) is not None:
        changes["heading_deg"] = turned
    elif row.get("heading_deg") is not None:
        unusable.add("heading_deg_invalid")
    if "altitude" in changes:
        # A manifest does not say what its heights refer to.
        changes["altitude_reference"] = None
    if row.get("projection"):
        changes["projection"] = row["projection"]
        if row["projection"] != PERSPECTIVE:
            changes["focal_px"] = None
    notes = {*header.notes, *unusable}
    if "captured_at" in changes:
        notes.discard("capture_zone_unknown")
    if "heading_deg" in changes:
        notes.discard("heading_magnetic")
    latitude, longitude = row.get("latitude"), row.get("longitude")
    if latitude is not None or longitude is not None:
        y, x = finite(latitude), finite(longitude)
        if y is not None and x is not None and is_valid_position(y, x):
            changes["latitude"], changes["longitude"] = y, x
            notes.discard("position_invalid")
        elif header.latitude is None:
            notes.add("position_invalid")
    return dataclasses.replace(header, **changes, notes=tuple(sorted(notes)))


def _read_csv(data: bytes) -> pa.Table:
    """All columns as text: what a column means is decided by its name, not by its first rows."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    head = data.split(b"\n", 1)[0]
    delimiter = max((b",", b";", b"\t"), key=head.count).decode()
    names = pyarrow.csv.open_csv(
        io.BytesIO(head + b"\n"), parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter)
    ).schema.names
    return pyarrow.csv.read_csv(
        io.BytesIO(data),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True
        ),
    )


def _read_parquet(name: str, data: bytes) -> pa.Table:
    table = pyarrow.parquet.read_table(io.BytesIO(data))
    if b"geo" not in (table.schema.metadata or {}):
        return table
    frame = geopandas.read_parquet(io.BytesIO(data))
    crs = frame.crs
    if crs is None:
        raise UserError(f"{name}: the geometry has no reference system; write it with one")
    points = frame.geometry
    if not crs.equals(_CRS84):
        points = points.to_crs(_CRS84)
    return _with_points(name, table, points.name, np.asarray(points.array))


def _read_geojson(name: str, data: bytes) -> pa.Table:
    record = json.loads(data)
    features = record.get("features") if isinstance(record, dict) else None
    if not isinstance(features, list) or not all(isinstance(each, dict) for each in features):
        raise UserError(f"{name}: a GeoJSON manifest is a FeatureCollection")
    rows = [each.get("properties") or {} for each in features]
    if not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{name}: the properties of a GeoJSON feature are an object")
    keys = dict.fromkeys(key for row in rows for key in row)
    # As text where the types are mixed: `_conform` reads numbers out of it.
    columns = {key: _column([row.get(key) for row in rows]) for key in keys}
    table = pa.table(columns) if columns else pa.table({"": pa.nulls(len(rows))})
    shapes = _geojson_points(name, [each.get("geometry") for each in features])
    crs = _geojson_crs(name, record)
    if not crs.equals(_CRS84):
        shapes = np.asarray(geopandas.GeoSeries(shapes, crs=crs).to_crs(_CRS84).array)
    return _with_points(name, table, _GEOMETRY, shapes)


def _geojson_points(name: str, geometries: list[Any]) -> np.ndarray:
    coordinates = np.full((len(geometries), 3), np.nan)
    present = np.array([geometry is not None for geometry in geometries], dtype=bool)
    try:
        points = [each["coordinates"] for each in geometries if each is not None]
        kinds = {each["type"] for each in geometries if each is not None}
        if kinds - {"Point"} or not {len(point) for point in points} <= {2, 3}:
            raise ValueError
        coordinates[present] = [[*point, np.nan][:3] for point in points] or np.empty((0, 3))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(_NOT_POINTS.format(name=name)) from error
    shapes = np.full(len(geometries), None, dtype=object)
    # A height of NaN would make the projection give up the whole point.
    solid = present & ~np.isnan(coordinates[:, 2])
    shapes[solid] = shapely.points(coordinates[solid])
    shapes[present & ~solid] = shapely.points(coordinates[present & ~solid, :2])
    return shapes


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except pa.ArrowException:
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def _geojson_crs(name: str, record: Mapping[str, Any]) -> Any:
    """The `crs` member of GeoJSON 2008; RFC 7946 dropped it and always means CRS84."""
    crs = record.get("crs")
    if crs is None:
        return pyproj.CRS.from_user_input(_CRS84)
    try:
        return pyproj.CRS.from_user_input(crs["properties"]["name"])
    except (KeyError, TypeError, pyproj.exceptions.CRSError) as error:
        raise UserError(f"{name}: unknown coordinate reference system {crs!r}") from error


def _with_points(name: str, table: pa.Table, column: str, shapes: np.ndarray) -> pa.Table:
    """The table with latitude and longitude (and altitude) from points, where it has none."""
    present = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    kinds = shapely.get_type_id(shapes[present])
    if (kinds != shapely.GeometryType.POINT).any():
        raise UserError(_NOT_POINTS.format(name=name))
    coordinates = np.full((len(shapes), 3), np.nan)
    coordinates[present] = shapely.get_coordinates(shapes[present], include_z=True)
    if column in table.column_names:
        table = table.drop_columns([column])
    found = {_canonical(each) for each in table.column_names}
    for target, values in (
        ("longitude", coordinates[:, 0]),
        ("latitude", coordinates[:, 1]),
        ("altitude", coordinates[:, 2]),
    ):
        if target not in found:
            table = table.append_column(target, pa.array(values, from_pandas=True))
    return table


def manifest_notes(table: pa.Table) -> tuple[str, ...]:
    """What `read_manifest` says of a manifest beside its rows: sentences, without a full stop."""
    return tuple(json.loads((table.schema.metadata or {}).get(_NOTES, b"[]")))


def _plain(column: str) -> str:
    """A column's name without case, signs and a group before a colon (`EXIF:GPSLatitude`)."""
    return "".join(letter for letter in column.rpartition(":")[2].lower() if letter.isalnum())


def _canonical(column: str) -> str:
    plain = _plain(column)
    for target in MANIFEST.names:
        if plain == _plain(target) or plain in ALIASES.get(target, ()):
            return target
    return plain


def _unused(columns: Sequence[str], used: Collection[str]) -> list[str]:
    """Sentences on the columns that are not read, and on a manifest without positions."""
    left = [column for column in columns if column.strip() and column not in used]
    notes = []
    if left:
        told = ", ".join(left[:20]) + (f" and {len(left) - 20} more" if len(left) > 20 else "")
        notes.append(f"columns of the manifest that are not read: {told}")
    targets = {_plain(target): target for target in MANIFEST.names}
    targets |= {alias: target for target, aliases in ALIASES.items() for alias in aliases}
    taken = {_canonical(column) for column in used}
    for column in left:
        plain = _plain(column)
        close = difflib.get_close_matches(plain, targets, n=1, cutoff=0.75)
        meant = _MEANT.get(plain) or (targets[close[0]] if close else None)
        if meant and meant not in taken:
            notes.append(
                f"{column} may be meant for {meant}: call it that, in WGS84 degrees"
                if meant in ("latitude", "longitude")
                else f"{column} may be meant for {meant}: call it that"
            )
    return notes


def _conform(name: str, table: pa.Table) -> pa.Table:
    """The table with MANIFEST's columns and types; other columns are left out, and noted."""
    by_name = {_plain(column): column for column in reversed(table.column_names)}
    by_name |= {column.strip().lower(): column for column in reversed(table.column_names)}
    chosen: dict[str, pa.ChunkedArray] = {}
    used: set[str] = set()
    for target in MANIFEST.names:
        names = (target, _plain(target), *ALIASES.get(target, ()))
        column = next((by_name[each] for each in names if each in by_name), None)
        if column is not None:
            chosen[target] = table.column(column)
            used.add(column)
    if "uri" not in chosen:
        found = ", ".join(column for column in table.column_names if column) or "none"
        raise UserError(
            f"{name}: a manifest needs the column uri (or {', '.join(ALIASES['uri'])}); "
            f"found: {found}"
        )
    if _GEOMETRY in by_name and "latitude" not in chosen and "longitude" not in chosen:
        shapes = _shapes(name, table.column(by_name[_GEOMETRY]))
        placed = _with_points(name, table, by_name[_GEOMETRY], shapes)
        return _conform(name, placed)
    columns = [
        _convert(name, field, chosen[field.name])
        if field.name in chosen
        else pa.nulls(table.num_rows, field.type)
        for field in MANIFEST
    ]
    _check_uris(name, columns[0])
    for place, field in enumerate(MANIFEST):
        ref, negative = _REFS.get(field.name, ("", ""))
        if ref in by_name and field.name in chosen:
            columns[place] = _signed(columns[place], table.column(by_name[ref]), negative)
            used.add(by_name[ref])
    notes = _unused(table.column_names, used)
    if ("latitude" in chosen) != ("longitude" in chosen):
        there, missing = ("latitude", "longitude")[:: 1 if "latitude" in chosen else -1]
        notes.append(f"the manifest has a {there} and no {missing}: it places nothing")
    if notes and not {"latitude", "longitude"} & set(chosen):
        notes.append("the manifest has no positions: those of the photographs count")
    schema = MANIFEST.with_metadata({_NOTES: json.dumps(notes).encode()}) if notes else MANIFEST
    table = pa.table(columns, schema=schema)
    _check_projections(name, table["projection"])
    return table


def _signed(
    degrees: pa.ChunkedArray | pa.Array, refs: pa.ChunkedArray, negative: str
) -> pa.ChunkedArray | pa.Array:
    """Degrees with the sign that a column of N, S, E or W (or the words) gives them."""
    letters = pc.utf8_upper(
        pc.utf8_slice_codeunits(pc.utf8_trim_whitespace(refs.cast("string")), 0, 1)
    )
    south_or_west = pc.fill_null(pc.equal(letters, negative), False)
    return pc.if_else(south_or_west, pc.negate(pc.abs(degrees)), degrees)


def _shapes(name: str, column: pa.ChunkedArray) -> np.ndarray:
    """Geometries of a bare `geometry` column: WKB (binary) or WKT (text), taken for CRS84."""
    kind = column.type
    values = column.to_numpy(zero_copy_only=False)
    values = np.where(pd.isna(values), None, values)
    try:
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return shapely.from_wkb(values)
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return shapely.from_wkt(values)
    except shapely.errors.GEOSException as error:
        raise UserError(f"{name}: a geometry does not parse: {error}") from error
    raise UserError(f"{name}: geometry is {kind}; it has to be WKB or WKT points")


def _convert(name: str, field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if text and field.name != "uri":
        column = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
    try:
        if pa.types.is_timestamp(field.type):
            if pa.types.is_null(column.type):
                return pa.nulls(len(column), field.type)
            if not (text or pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
                raise ValueError(f"{column.type} is no time")
            moments = pd.to_datetime(
                pd.Series(column.to_pandas()), utc=True, format="ISO8601" if text else None
            )
            return pa.array(moments.dt.tz_convert(None).to_numpy()).cast(field.type, safe=False)
        return pc.cast(column, field.type)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        line = " ".join(str(error).split())[:160]
        raise UserError(f"{name}: column {field.name} does not read as {field.type}: {line}") from (
            error
        )


def _check_uris(name: str, uris: pa.ChunkedArray) -> None:
    missing = pc.or_kleene(pc.is_null(uris), pc.equal(pc.utf8_trim_whitespace(uris), ""))
    if (row := pc.index(missing, True).as_py()) >= 0:
        raise UserError(f"{name}: row {row + 1} has no uri")
    if pc.count_distinct(uris).as_py() < len(uris):
        counts = pc.value_counts(uris)
        repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        raise UserError(
            f"{name}: each photograph has one row; {repeated[0].as_py()} has more, "
            f"and so have {len(repeated) - 1} others"
        )


def _check_projections(name: str, column: pa.ChunkedArray) -> None:
    unknown = set(pc.unique(column).to_pylist()) - {None, *PROJECTIONS}
    if unknown:
        raise UserError(
            f"{name}: a projection is one of {', '.join(PROJECTIONS)}; found: {min(unknown)}"
        )


def to_json(row: Mapping[str, Any]) -> str | None:
    """What a manifest row says of its image as canonical JSON; None where it says nothing."""
    said = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in sorted(row.items())
        if value is not None
    }
    return json.dumps(said, sort_keys=True) if said else None


def from_json(text: str) -> dict[str, Any]:
    """The inverse of `to_json`."""
    row: dict[str, Any] = json.loads(text)
    if "captured_at" in row:
        row["captured_at"] = datetime.fromisoformat(row["captured_at"])
    return row
