"""Reads manifests: tables of photographs with optional positions, times and cameras."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from vladmap.photos.headers.projection import PROJECTIONS
from vladmap.photos.manifests.columns import (
    ALIASES,
    MANIFEST,
    MANIFEST_SUFFIXES,
    plain_name,
    unused_columns,
)
from vladmap.photos.manifests.parsing import read_csv, read_geojson, read_parquet
from vladmap.photos.manifests.points import GEOMETRY, geometries, with_points
from vladmap.schemas.rejects import UserError

_REFS = {"latitude": ("gpslatituderef", "S"), "longitude": ("gpslongituderef", "W")}

_NOTES = b"vladmap:notes"


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
            table = read_csv(data)
        elif suffix in ("parquet", "geoparquet"):
            table = read_parquet(name, data)
        else:
            table = read_geojson(name, data)
    except (pa.ArrowException, ValueError, RecursionError, UnicodeError, OSError) as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{name}: not a readable {suffix} manifest: {line}") from error
    return _conform(name, table)


def manifest_notes(table: pa.Table) -> tuple[str, ...]:
    """Remarks of `read_manifest` on a manifest, for the user: sentences without a full stop."""
    return tuple(json.loads((table.schema.metadata or {}).get(_NOTES, b"[]")))


def _conform(name: str, table: pa.Table) -> pa.Table:
    """The table with MANIFEST's columns and types; other columns are left out, and noted."""
    by_name = {plain_name(column): column for column in reversed(table.column_names)}
    by_name |= {column.strip().lower(): column for column in reversed(table.column_names)}
    chosen: dict[str, pa.ChunkedArray] = {}
    used: set[str] = set()
    for target in MANIFEST.names:
        names = (target, plain_name(target), *ALIASES.get(target, ()))
        column = next((by_name[each] for each in names if each in by_name), None)
        if column is not None:
            chosen[target] = table.column(column)
            used.add(column)
    if "uri" not in chosen:
        present = ", ".join(column for column in table.column_names if column) or "none"
        raise UserError(
            f"{name}: a manifest needs the column uri (or {', '.join(ALIASES['uri'])}); "
            f"found: {present}"
        )
    if GEOMETRY in by_name and "latitude" not in chosen and "longitude" not in chosen:
        shapes = geometries(name, table.column(by_name[GEOMETRY]))
        placed = with_points(name, table, by_name[GEOMETRY], shapes)
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
    notes = unused_columns(table.column_names, used)
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
