"""Ingest: read every photograph's header once, then give each image its place in the atlas.

Two transforms. ScanPhotos reads whole files, in chunks of the listing, and keeps what it learnt in
`work/headers/`. OrganiseImages shuffles only those small rows: exact duplicates, sequences and
cells need to see the whole collection, and a shard of `images/` holds images of one cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_entry, commit_shard, reject_row
from vladmap.console import counter as progress
from vladmap.photos.cells import assign_cells
from vladmap.photos.clocks import ASSUMED_UTC, NEIGHBOURS, zones_of_neighbours
from vladmap.photos.decode import inspect
from vladmap.photos.geometry import boxes, points_wkb, with_geo_metadata
from vladmap.photos.ids import content_hash, image_id
from vladmap.photos.manifest import from_json, override
from vladmap.photos.projection import PERSPECTIVE
from vladmap.photos.sequences import assign_sequences, sequence_group
from vladmap.schemas import tables
from vladmap.schemas.records import NO_CELL, LedgerEntry, Task
from vladmap.schemas.rejects import PhotoError, RejectReason
from vladmap.transforms.counters import StageCounters
from vladmap.transforms.photos import photo_bytes

STAGE = "ingest"
SCAN = "scan"

LISTING = pa.schema(
    [
        ("path", pa.string()),
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("modified_ns", pa.int64()),
        ("changed_ns", pa.int64()),
        ("kind", pa.string()),
        ("overrides", pa.string()),
    ]
)
"""One file of a collection; `kind` is `file`, or why it is none; `overrides` JSON of a manifest.

Times are nanoseconds since 1970. `modified_ns` is what programs that correct a photograph in place
like to restore; `changed_ns` (ctime) is the file system's own and nobody's to set. It is null where
there is none: an object store's modification time is its own already.
"""

PLANNED = pa.schema([*LISTING, ("home", pa.string()), ("home_hash", pa.string())])
"""A listed file in a plan. `home` is the chunk where it stood with the bytes of `home_hash`: found
to be those bytes still, it stays there, so that a touched or moved file costs no descriptor.
"""

_HEADER_FIELDS = [
    "width",
    "height",
    "make",
    "model",
    "focal_px",
    "captured_at",
    "captured_local",
    "time_source",
    "latitude",
    "longitude",
    "altitude",
    "gps_accuracy_m",
    "heading_deg",
    "projection",
]

HEADERS = pa.schema(
    [
        ("path", pa.string()),
        ("home", pa.string()),
        ("given_sequence", pa.string()),
        ("notes", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        *(
            tables.IMAGES.field(name).with_nullable(True)
            for name in ("image_id", "uri", "content_hash", "sharpness", *_HEADER_FIELDS)
        ),
    ]
)
"""What one file said of itself, or (`reason`, `detail`) why it cannot be used."""

_NOT_FILES = {
    "not_a_file": (RejectReason.NOT_A_FILE, "not a regular file"),
    "missing": (RejectReason.MISSING, "listed, but there is no such file"),
    "unreadable": (RejectReason.UNREADABLE, "the folder cannot be read: check its permissions"),
    "name_not_utf8": (RejectReason.UNREADABLE, "the file's name is not UTF-8: rename it"),
}

_CAMERA = ["make", "model", "width", "height", "focal_px", "projection"]

PARTS = {
    # What is computed from pixels alone: descriptors, patches.
    "pixels": ["image_id", "content_hash", "width", "height", "duplicate_of"],
    # Local features: only what one lens took has them.
    "features": ["image_id", "content_hash", "width", "height", "duplicate_of", "projection"],
    # The index of places.
    "directions": ["image_id", "latitude", "longitude", "heading_deg"],
    # Pairs; `pipeline.stages.pair` sees to the sequences, which cross shards.
    "places": ["image_id", "latitude", "longitude", "gps_accuracy_m"],
    # Two-view geometry.
    "cameras": ["image_id", *_CAMERA],
    # Tiles: all but the sequences, the uri (a model has names in the collection) and the sharpness.
    "map": [
        *("image_id", "name", "content_hash", "duplicate_of", *_CAMERA, "captured_at"),
        *("latitude", "longitude", "altitude", "gps_accuracy_m", "heading_deg"),
    ],
}
"""Columns of `images/` that later stages read, by the name under which the ledger keeps their
identity: a stage depends on its own and no others. The identity of a whole shard is its file's.
"""

# Shards of one block are made together: a group of a shuffle holds at most this many chunks.
_CHUNKS_PER_BLOCK = 50


@dataclass(eq=False)
class ScanPhotos(beam.PTransform):
    """Tasks of listing chunks -> ledger entries of `work/headers/`."""

    root: str
    max_pixels: int
    threads: int

    def expand(self, pipeline: beam.Pipeline | beam.PCollection) -> beam.PCollection:
        return pipeline | beam.ParDo(_Scan(self.root, self.max_pixels, self.threads))


class _Scan(beam.DoFn):
    def __init__(self, root: str, max_pixels: int, threads: int) -> None:
        self._root, self._max_pixels, self._threads = root, max_pixels, threads

    def process(self, task: Task) -> Iterator[LedgerEntry]:
        counters = StageCounters(SCAN)
        listing = storage.read_table(storage.join(self._root, task.read("plan")))
        with ThreadPoolExecutor(self._threads) as pool:
            rows = list(pool.map(self._read, listing.to_pylist()))
        rejected = sum(row["reason"] is not None for row in rows)
        counters.add("images", len(rows))
        counters.add("rejects", rejected)
        table = pa.Table.from_pylist(rows, schema=HEADERS)
        files = [storage.commit_table(self._root, task.output, table)]
        counts = {"images": len(rows), "rejects": rejected}
        yield commit_entry(self._root, SCAN, task, files, counts=counts)

    def _read(self, item: dict[str, Any]) -> dict[str, Any]:
        try:
            row = {"reason": None, **read_photo(item, self._max_pixels)}
        except PhotoError as error:
            row = {"reason": error.reason.value, "detail": error.detail}
        progress.advance()
        known = item["home"] and item["home_hash"] == row.get("content_hash")
        return {
            "path": item["path"],
            "uri": item["uri"],
            "image_id": image_id(item["path"]),
            "home": item["home"] if known else None,
            **row,
        }


def read_photo(item: dict[str, Any], max_pixels: int) -> dict[str, Any]:
    """Columns of HEADERS for one listed file, what the manifest says over what the file says.

    Raises PhotoError where the file cannot be used.
    """
    if item["kind"] in _NOT_FILES:
        raise PhotoError(*_NOT_FILES[item["kind"]])
    data = photo_bytes(item["uri"], max_pixels)
    header, sharpness = inspect(data, max_pixels=max_pixels)
    if item["overrides"]:
        header = override(header, from_json(item["overrides"]))
    return {
        **{name: getattr(header, name) for name in _HEADER_FIELDS},
        "content_hash": content_hash(data),
        "sharpness": sharpness,
        "given_sequence": header.sequence,
        "notes": " ".join(header.notes),
    }


@dataclass(eq=False)
class OrganiseImages(beam.PTransform):
    """Tasks of header chunks -> ledger entries of `images/`, and rejects of the whole stage.

    The rows shuffled are headers, a few hundred bytes each. `dead` names a table of (chunk, path)
    rows that the collection no longer holds as they were read.
    """

    root: str
    fingerprint: str
    shard_images: int
    cell_resolution: int
    max_gap_s: float
    max_gap_m: float
    dead: str

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        rows = tasks | "Read headers" >> beam.ParDo(_ReadHeaders(self.root, self.dead))
        good = rows | "Good" >> beam.Filter(lambda row: row["reason"] is None)
        rejects = (
            rows
            | "Rejected" >> beam.Filter(lambda row: row["reason"] is not None)
            | "By block" >> beam.GroupBy(lambda row: row["block"])
            | "Write rejects" >> beam.ParDo(_WriteRejects(self.root, self.fingerprint))
        )
        duplicates = (
            good
            | "By content" >> beam.Map(lambda row: (row["content_hash"], _order(row)))
            | "Same content" >> beam.GroupByKey()
            | "Duplicates" >> beam.FlatMap(_duplicates)
        )
        sequences = (
            good
            | "By clock" >> beam.Map(lambda row: (_clock(row), _stop(row)))
            | "Same clock" >> beam.GroupByKey()
            | "Zones" >> beam.FlatMap(_zones)
            | "Same drive" >> beam.GroupByKey()
            | "Sequences" >> beam.FlatMap(_sequences, self.max_gap_s, self.max_gap_m)
        )
        images = (
            {
                "row": good | "Key rows" >> beam.Map(lambda row: (row["image_id"], row)),
                "duplicate": duplicates,
                "sequence": sequences,
            }
            | "Join" >> beam.CoGroupByKey()
            | "Complete" >> beam.FlatMap(_complete, self.cell_resolution)
            | "Same cell" >> beam.GroupByKey()
            | "Write images"
            >> beam.ParDo(_WriteImages(self.root, self.fingerprint, self.shard_images))
        )
        return (images, rejects) | beam.Flatten()


class _ReadHeaders(beam.DoFn):
    def __init__(self, root: str, dead: str) -> None:
        self._root, self._dead = root, dead

    def setup(self) -> None:
        dead = storage.read_table(storage.join(self._root, self._dead))
        self._removed = set(
            zip(*(dead[name].to_pylist() for name in ("chunk", "path")), strict=True)
        )

    def process(self, task: Task) -> Iterator[dict[str, Any]]:
        for row in storage.read_table(storage.join(self._root, task.read("headers"))).to_pylist():
            if (task.shard, row["path"]) not in self._removed:
                yield {**row, "block": _block(row.get("home") or task.shard)}


def _block(chunk: str) -> str:
    generation, number = chunk.split("-")
    return f"{generation}-{int(number) // _CHUNKS_PER_BLOCK:03d}"


def _order(row: dict[str, Any]) -> tuple[str, str, str]:
    """The first of equal photographs is the one that came first, then the first by path."""
    return row["block"].partition("-")[0], row["path"], row["image_id"]


def _duplicates(group: tuple[str, Iterable[tuple[str, str, str]]]) -> Iterator[tuple[str, str]]:
    first, *others = sorted(group[1])
    for _, _, duplicate in others:
        yield duplicate, first[2]


def _clock(row: dict[str, Any]) -> str:
    """What the zone of a clock holds for: a camera's frames in a folder."""
    return sequence_group(row["path"], row["make"], row["model"], None)


_STOP_FIELDS = [
    "image_id",
    "path",
    "captured_at",
    "captured_local",
    "time_source",
    "latitude",
    "longitude",
    "make",
    "model",
    "given_sequence",
]


def _stop(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in _STOP_FIELDS)


def _columns(stops: Iterable[tuple[Any, ...]]) -> dict[str, list[Any]]:
    ordered = sorted(stops, key=lambda stop: stop[0])
    return dict(zip(_STOP_FIELDS, map(list, zip(*ordered, strict=True)), strict=True))


def _zones(
    group: tuple[str, Iterable[tuple[Any, ...]]],
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The stops of one clock with their zones, under what a sequence may not cross."""
    stops = _columns(group[1])
    stops["captured_at"], stops["time_source"] = zones_of_neighbours(
        stops["captured_at"], stops["captured_local"], stops["time_source"]
    )
    for stop in zip(*stops.values(), strict=True):
        row = dict(zip(_STOP_FIELDS, stop, strict=True))
        yield sequence_group(row["path"], row["make"], row["model"], row["given_sequence"]), stop


def _sequences(
    group: tuple[str, Iterable[tuple[Any, ...]]], max_gap_s: float, max_gap_m: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a row of `images/` gets from the others of its drive."""
    stops = _columns(group[1])
    ids, index = assign_sequences(
        stops["image_id"],
        stops["path"],
        stops["captured_at"],
        np.array(stops["latitude"], dtype=float),
        np.array(stops["longitude"], dtype=float),
        stops["make"],
        stops["model"],
        stops["given_sequence"],
        max_gap_s=max_gap_s,
        max_gap_m=max_gap_m,
    )
    for row, (image, sequence, position) in enumerate(
        zip(stops["image_id"], ids, index.tolist(), strict=True)
    ):
        yield (
            image,
            {
                "sequence_id": sequence,
                "sequence_index": position,
                "captured_at": stops["captured_at"][row],
                "time_source": stops["time_source"][row],
            },
        )


def _complete(
    joined: tuple[str, dict[str, list[Any]]], resolution: int
) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """The finished row of `images/` under its block and cell."""
    found = joined[1]
    for row in found["row"]:
        cell = assign_cells([row["latitude"]], [row["longitude"]], resolution)[0]
        yield (
            (row["block"], cell),
            {
                **row,
                **next(iter(found["sequence"])),
                "cell": cell,
                "duplicate_of": next(iter(found["duplicate"]), None),
            },
        )


class _WriteImages(beam.DoFn):
    def __init__(self, root: str, fingerprint: str, shard_images: int) -> None:
        self._root, self._fingerprint, self._size = root, fingerprint, shard_images

    def process(
        self, group: tuple[tuple[str, str], Iterable[dict[str, Any]]]
    ) -> Iterator[LedgerEntry]:
        (block, cell), members = group
        rows = sorted(members, key=lambda row: row["image_id"])
        for piece, start in enumerate(range(0, len(rows), self._size)):
            shard = f"{block}-{cell}-{piece:03d}"
            output = f"images/cell={cell}/{shard}.parquet"
            task = Task(shard, cell, output, self._fingerprint)
            yield self._write(task, rows[start : start + self._size])

    def _write(self, task: Task, rows: list[dict[str, Any]]) -> LedgerEntry:
        table = images_table(rows)
        counts = {
            "images": len(rows),
            "duplicates": len(rows) - table["duplicate_of"].null_count,
            "without_position": len(rows) if task.cell == NO_CELL else 0,
            "invalid_positions": sum("position_invalid" in row["notes"] for row in rows),
            "invalid_facts": sum(map(_has_invalid_facts, rows)),
            "panoramas": sum(row["projection"] != PERSPECTIVE for row in rows),
            "zones_unknown": sum(row["time_source"] == ASSUMED_UTC for row in rows),
            "zones_of_neighbours": sum(row["time_source"] == NEIGHBOURS for row in rows),
        }
        return commit_shard(self._root, STAGE, task, table, parts=_parts(table), counts=counts)


def _has_invalid_facts(row: dict[str, Any]) -> bool:
    notes = set(row["notes"].split()) - {"position_invalid"}
    return any(note.endswith("_invalid") for note in notes)


def _parts(table: pa.Table) -> dict[str, str]:
    columns = {name: table[name].to_pylist() for name in set().union(*PARTS.values())}
    return {
        part: storage.combined_digest(
            str(row) for row in zip(*(columns[name] for name in names), strict=True)
        )
        for part, names in PARTS.items()
    }


def images_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a GeoParquet table of schemas.tables.IMAGES."""
    latitude, longitude, altitude = (
        np.array([row[name] for row in rows], dtype=float)
        for name in ("latitude", "longitude", "altitude")
    )
    made = {
        "name": pa.array([row["path"] for row in rows], pa.string()),
        "geometry": points_wkb(latitude, longitude, altitude),
        "bbox": boxes(latitude, longitude),
    }
    columns = [
        made[field.name]
        if field.name in made
        else pa.array([row[field.name] for row in rows], field.type)
        for field in tables.IMAGES
    ]
    return with_geo_metadata(pa.table(columns, schema=tables.IMAGES))


class _WriteRejects(beam.DoFn):
    def __init__(self, root: str, fingerprint: str) -> None:
        self._root, self._fingerprint = root, fingerprint

    def process(self, group: tuple[str, Iterable[dict[str, Any]]]) -> Iterator[LedgerEntry]:
        block, members = group
        rows = [
            reject_row(
                row["uri"],
                row["image_id"],
                STAGE,
                PhotoError(RejectReason(row["reason"]), row["detail"]),
            )
            for row in sorted(members, key=lambda row: row["path"])
        ]
        table = pa.Table.from_pylist(rows, schema=tables.REJECTS)
        path = f"rejects/{STAGE}/{block}.parquet"
        task = Task(f"rejects-{block}", NO_CELL, path, self._fingerprint)
        files = [storage.commit_table(self._root, path, table)]
        yield commit_entry(self._root, STAGE, task, files, counts={"rejects": len(rows)})
