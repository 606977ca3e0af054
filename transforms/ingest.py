"""Ingest: read the header of each photograph once, then organise the images into shards.

ScanPhotos: chunks of the listing (schemas.ingest_tables.PLANNED) in, `work/headers/` out. It reads
whole files. OrganiseImages: those header rows in, `images/` and `rejects/ingest/` out. It shuffles
only the rows, a few hundred bytes each: exact duplicates, sequences and cells depend on the whole
collection. A shard of `images/` holds images of one cell, or of a few beside each other that have
few each.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_entry, commit_shard, reject_row
from vladmap.atlas.image_parts import part_digests
from vladmap.atlas.photographs import photo_bytes
from vladmap.console import counter as progress
from vladmap.photos.headers.rows import header_row, require_file
from vladmap.photos.ids import image_id
from vladmap.photos.image_table import image_counts, image_table
from vladmap.photos.organise import (
    Copy,
    Frame,
    complete_row,
    duplicates,
    sequence_columns,
    with_zones,
)
from vladmap.photos.shard_homes import Home, Shard, homes_of, homes_table, placed
from vladmap.schemas import tables
from vladmap.schemas.ingest_tables import HEADERS
from vladmap.schemas.records import NO_CELL, LedgerEntry, Task
from vladmap.schemas.rejects import DamagedFile, PhotoError, RejectReason
from vladmap.transforms.counters import StageCounters

log = logging.getLogger("vladmap")

STAGE = "ingest"
SCAN = "scan"

# The shards of one block are made together: a group of a shuffle holds at most so many chunks.
_CHUNKS_PER_BLOCK = 50

Row = dict[str, Any]


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
        listing = storage.read_table(storage.join(self._root, task.path("plan")))
        with ThreadPoolExecutor(self._threads) as pool:
            rows = list(pool.map(self._read, listing.to_pylist()))
        rejected = sum(row["reason"] is not None for row in rows)
        counters.add("images", len(rows))
        counters.add("rejects", rejected)
        table = pa.Table.from_pylist(rows, schema=HEADERS)
        files = [storage.commit_table(self._root, task.output, table)]
        counts = {"images": len(rows), "rejects": rejected}
        yield commit_entry(self._root, SCAN, task, files, counts=counts)

    def _read(self, item: Row) -> Row:
        """The row of HEADERS of one listed file."""
        try:
            require_file(item["kind"])
            data = photo_bytes(item["uri"], self._max_pixels)
            row = {"reason": None, **header_row(data, item["overrides"], self._max_pixels)}
        except PhotoError as error:
            row = {"reason": error.reason.value, "detail": error.detail}
        progress.advance()
        is_unchanged = item["home"] and item["home_hash"] == row.get("content_hash")
        return {
            "path": item["path"],
            "uri": item["uri"],
            "image_id": image_id(item["path"]),
            "home": item["home"] if is_unchanged else None,
            **row,
        }


@dataclass(eq=False)
class OrganiseImages(beam.PTransform):
    """Tasks of header chunks -> ledger entries of `images/`, and rejects of the whole stage.

    `dead` is the path of a table of (chunk, path): header rows whose files have left the collection
    or were changed since. `joining` names the generations in which cells of few photographs share
    shards; those of before it was so keep theirs.
    """

    root: str
    fingerprint: str
    shard_images: int
    cell_resolution: int
    max_gap_s: float
    max_gap_m: float
    dead: str
    joining: frozenset[str] = frozenset()

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
            | "By content" >> beam.Map(lambda row: (row["content_hash"], _copy(row)))
            | "Same content" >> beam.GroupByKey()
            | "Duplicates" >> beam.FlatMap(_duplicates)
        )
        sequences = (
            good
            | "By clock" >> beam.Map(_by_clock)
            | "Same clock" >> beam.GroupByKey()
            | "Zones" >> beam.FlatMap(_zones)
            | "Same drive" >> beam.GroupByKey()
            | "Sequences" >> beam.FlatMap(_sequences, self.max_gap_s, self.max_gap_m)
        )
        images = (
            {
                "row": good | "Places of rows" >> beam.Map(_place),
                "duplicate": duplicates,
                "sequence": sequences,
            }
            | "Join" >> beam.CoGroupByKey()
            | "By block, too" >> beam.FlatMap(_joined)
            | "Same block" >> beam.GroupByKey()
            | "Write images" >> beam.ParDo(_WriteImages(self))
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

    def process(self, task: Task) -> Iterator[Row]:
        path = task.path("headers")
        for row in storage.read_table(storage.join(self._root, path)).to_pylist():
            if (task.shard, row["path"]) not in self._removed:
                yield {**row, "block": _block(row.get("home") or task.shard), "headers": path}


def _block(chunk: str) -> str:
    generation, number = chunk.split("-")
    return f"{generation}-{int(number) // _CHUNKS_PER_BLOCK:03d}"


def _copy(row: Row) -> tuple[str, str, str]:
    return row["block"].partition("-")[0], row["path"], row["image_id"]


def _duplicates(group: tuple[str, Iterable[tuple[str, str, str]]]) -> Iterator[tuple[str, str]]:
    return duplicates(map(Copy._make, group[1]))


# Frames are shuffled as plain tuples: pickled as a Frame, each element would hold its class name.
_Values = tuple[Any, ...]


def _by_clock(row: Row) -> tuple[str, _Values]:
    frame = Frame.of(row)
    return frame.clock, tuple(frame)


def _zones(group: tuple[str, Iterable[_Values]]) -> Iterator[tuple[str, _Values]]:
    """The frames of one clock, with their time zones, grouped by drive."""
    for frame in with_zones(map(Frame._make, group[1])):
        yield frame.drive, tuple(frame)


def _sequences(
    group: tuple[str, Iterable[_Values]], max_gap_s: float, max_gap_m: float
) -> Iterator[tuple[str, Row]]:
    return sequence_columns(map(Frame._make, group[1]), max_gap_s, max_gap_m)


def _place(row: Row) -> tuple[str, tuple[str, str]]:
    """(image_id, (block, path of its headers)): the row itself is read again where it is written.

    A runner on one machine holds what it shuffles in memory, and a row has 40 columns.
    """
    return row["image_id"], (row["block"], row["headers"])


def _joined(group: tuple[str, dict[str, list[Any]]]) -> Iterator[tuple[str, _Values]]:
    """(block, (image_id, path of its headers, its sequence's columns, its original or None))."""
    image, parts = group
    duplicate_of = next(iter(parts["duplicate"]), None)
    for block, path in parts["row"]:
        yield block, (image, path, next(iter(parts["sequence"])), duplicate_of)


class _WriteImages(beam.DoFn):
    """The rows of a block, by cell, or by the cells that share shards: cut, and committed.

    How they are cut is kept beside them: a photograph that leaves costs its own shard only.
    """

    def __init__(self, settings: OrganiseImages) -> None:
        self._root, self._fingerprint = settings.root, settings.fingerprint
        self._size, self._joining = settings.shard_images, settings.joining
        self._resolution = settings.cell_resolution

    def process(self, group: tuple[str, Iterable[_Values]]) -> Iterator[LedgerEntry]:
        block, members = group
        rows = {row["image_id"]: row for row in self._rows(members)}
        by_cell: dict[str, list[str]] = defaultdict(list)
        for image in sorted(rows):
            by_cell[rows[image]["cell"]].append(image)
        for (name, piece), images in sorted(self._shards(block, by_cell).items()):
            shard = f"{block}-{name}-{piece:03d}"
            task = Task(shard, name, layout.images(shard), self._fingerprint)
            resolution = self._resolution if {cell for cell, _ in images} != {name} else None
            yield self._write(task, [rows[image] for _, image in images], resolution)

    def _rows(self, members: Iterable[_Values]) -> Iterator[Row]:
        """The finished rows of `images/`."""
        learnt: dict[str, dict[str, _Values]] = defaultdict(dict)
        for image, path, *rest in members:
            learnt[path][image] = tuple(rest)
        for path, of_image in sorted(learnt.items()):
            for header in storage.read_table(storage.join(self._root, path)).to_pylist():
                if header["image_id"] in of_image:
                    sequence, duplicate_of = of_image[header["image_id"]]
                    yield complete_row(header, sequence, duplicate_of, self._resolution)

    def _shards(
        self, block: str, by_cell: Mapping[str, Sequence[str]]
    ) -> dict[Shard, list[tuple[str, str]]]:
        """(cell, image_id) of each shard that has any: where they were cut before, they stay."""
        path = storage.join(self._root, layout.shard_homes(block))
        joining = block.partition("-")[0] in self._joining
        cut = {b"vladmap:cut": f"{self._size} {self._resolution} {joining}".encode()}
        known: list[Home] = []
        if storage.exists(path):
            try:
                table = storage.read_table(path)
                if table.schema.metadata == cut:
                    known = homes_of(table)
            except (DamagedFile, ValueError) as error:
                log.warning("%s: %s; its images are cut into shards anew", path, error)
        shards, homes = placed(by_cell, known, self._size, joining=joining)
        if homes != known:
            table = homes_table(homes).replace_schema_metadata(cut)
            storage.commit_table(self._root, layout.shard_homes(block), table)
        return {shard: images for shard, images in shards.items() if images}

    def _write(self, task: Task, rows: list[Row], resolution: int | None) -> LedgerEntry:
        rows = sorted(rows, key=lambda row: row["image_id"])
        table = image_table(rows, resolution)
        StageCounters(STAGE).add("images", len(rows))
        return commit_shard(
            self._root, STAGE, task, table, parts=part_digests(table), counts=image_counts(rows)
        )


class _WriteRejects(beam.DoFn):
    def __init__(self, root: str, fingerprint: str) -> None:
        self._root, self._fingerprint = root, fingerprint

    def process(self, group: tuple[str, Iterable[Row]]) -> Iterator[LedgerEntry]:
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
        StageCounters(STAGE).add("rejects", len(rows))
        table = pa.Table.from_pylist(rows, schema=tables.REJECTS)
        path = layout.rejects(STAGE, block)
        task = Task(f"rejects-{block}", NO_CELL, path, self._fingerprint)
        files = [storage.commit_table(self._root, path, table)]
        yield commit_entry(self._root, STAGE, task, files, counts={"rejects": len(rows)})
