"""An exact comparison of two atlases: every Parquet table, COLMAP model and index.

    python -m vladmap.atlas.difference A B

prints a line a table and exits 1 where anything differs. Rows are compared in the order of their
ids, values bit by bit, schemas with their metadata; models (`.bin`) and indices (`.faiss`) as
bytes. Reports, ledgers and timings are not compared, because they differ between builds.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vladmap.schemas.rejects import UserError

_BYTES = {".bin", ".faiss"}
_IDS = ("image_id", "image_id_a", "image_id_b", "id", "uri", "stage", "reason")
_SHOWN = 3


@dataclass(frozen=True)
class Comparison:
    """One table (or model, or index) of two atlases. `differences` is empty where all is equal."""

    name: str
    files: int
    rows: int | None
    differences: tuple[str, ...]

    def __str__(self) -> str:
        rows = "" if self.rows is None else f"{self.rows} rows"
        shown = "; ".join(self.differences[:_SHOWN])
        more = len(self.differences) - _SHOWN
        verdict = f"DIFFERENT: {shown}" if self.differences else "equal"
        rest = f"; and {more} more" if more > 0 else ""
        return f"{self.name:<32} {self.files:>5} files {rows:>12}  {verdict}{rest}"


def compare_atlases(a: Path, b: Path) -> Iterator[Comparison]:
    """Compare two local atlases, table by table in the order of their names.

    One file of each is held in memory at a time, so that memory is bounded by the shard size.

    Raises UserError for a folder without any table: nothing compared is not equality.
    """
    ours, theirs = _tables(a), _tables(b)
    for name in sorted(ours | theirs):
        yield _compare(name, a, b, ours.get(name, set()), theirs.get(name, set()))


def _tables(root: Path) -> dict[str, set[str]]:
    """Files of each table, relative to the atlas. A table is the folder above its partitions."""
    files: dict[str, set[str]] = defaultdict(set)
    for path in root.rglob("*"):
        if path.suffix in _BYTES or path.suffix == ".parquet":
            relative = path.relative_to(root).as_posix()
            files[_table_name(relative)].add(relative)
    if not files:
        raise UserError(f"{root} holds no tables: give the folder of a finished atlas")
    return files


def _table_name(path: str) -> str:
    parts = PurePosixPath(path).parts
    if len(parts) == 1 or parts[0] == "index":
        return path
    folders = [part for part in parts[:-1] if not part.startswith("cell=")]
    if parts[0] in ("model", "tiles"):
        folders = folders[:1]
    return "/".join(folders)


def _compare(name: str, a: Path, b: Path, ours: set[str], theirs: set[str]) -> Comparison:
    differences = [f"{path} is only in {a}" for path in sorted(ours - theirs)]
    differences += [f"{path} is only in {b}" for path in sorted(theirs - ours)]
    rows: int | None = None
    for path in sorted(ours & theirs):
        if path.endswith(".parquet"):
            rows = (rows or 0) + pq.read_metadata(a / path).num_rows
        if (a / path).read_bytes() == (b / path).read_bytes():
            continue
        if path.endswith(".parquet"):
            details = _table_differences(pq.read_table(a / path), pq.read_table(b / path))
        else:
            details = ["bytes"]
        differences += [f"{path}: {what}" for what in details]
    return Comparison(name, len(ours), rows, tuple(differences))


def _table_differences(ours: pa.Table, theirs: pa.Table) -> list[str]:
    if not ours.schema.equals(theirs.schema, check_metadata=True):
        return list(_schema_differences(ours.schema, theirs.schema))
    if ours.num_rows != theirs.num_rows:
        return [f"{ours.num_rows} and {theirs.num_rows} rows"]
    ours, theirs = _by_ids(ours), _by_ids(theirs)
    return [
        f"column {name}"
        for name in ours.column_names
        if _bits(ours.select([name])) != _bits(theirs.select([name]))
    ]


def _schema_differences(ours: pa.Schema, theirs: pa.Schema) -> Iterator[str]:
    if ours.names != theirs.names:
        yield f"columns {ours.names} and {theirs.names}"
        return
    for mine, other in zip(ours, theirs, strict=True):
        if not mine.equals(other, check_metadata=True):
            yield f"field {mine.name}: its type or metadata"
    before, after = ours.metadata or {}, theirs.metadata or {}
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield f"metadata {key.decode(errors='replace')}"


def _by_ids(table: pa.Table) -> pa.Table:
    keys = [(name, "ascending") for name in _IDS if name in table.column_names]
    return table.take(pc.sort_indices(table, sort_keys=keys)) if keys else table


def _bits(table: pa.Table) -> bytes:
    """A table as bytes, in one chunk. Unlike Arrow's equality, this holds NaN equal to itself."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()


def report(comparisons: Iterable[Comparison]) -> bool:
    """Print a line a table; returns whether all are equal."""
    different = count = 0
    for comparison in comparisons:
        print(comparison, flush=True)
        count += 1
        different += bool(comparison.differences)
    print(f"{different} of {count} tables differ" if different else f"all {count} tables equal")
    return not different


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare two atlases; exit code 0 when equal, 1 when not, 2 for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m vladmap.atlas.difference", description="Compare two atlases table by table."
    )
    parser.add_argument("a", type=Path, metavar="A", help="folder of an atlas")
    parser.add_argument("b", type=Path, metavar="B", help="folder of another")
    parsed = parser.parse_args(arguments)
    try:
        return 0 if report(compare_atlases(parsed.a, parsed.b)) else 1
    except UserError as error:
        print(f"vladmap: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
