"""How files of an atlas come onto the disk and off it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vladmap.atlas import storage
from vladmap.atlas.store import AtlasStore
from vladmap.schemas.rejects import DamagedFile


def test_a_page_of_a_column_that_is_damaged_is_noticed_by_who_reads_that_column(
    tmp_path: Path,
) -> None:
    """Issue 19, 17: a flipped bit among uncompressible numbers is another number."""
    numbers = pa.table({"a": pa.array(range(100_000)), "b": pa.array([0.1] * 100_000)})
    data = bytearray(storage.table_bytes(numbers))
    path = tmp_path / "t.parquet"
    wrong = 0
    for place in range(4, len(data) - 2000, len(data) // 40):
        data[place] ^= 4
        path.write_bytes(data)
        data[place] ^= 4
        try:
            wrong += not storage.read_table(str(path)).equals(numbers)
        except DamagedFile:
            continue
    assert wrong == 0


def test_half_written_files_of_killed_runs_are_deleted_and_those_of_living_ones_not(
    tmp_path: Path,
) -> None:
    """Issue 19, 18: half-written `.X.tmp` stayed for ever."""
    atlas = AtlasStore.open(str(tmp_path), create=True)
    old, new, other = (
        tmp_path / "images" / name
        for name in (f".a.parquet.{'0' * 32}.tmp", f".b.parquet.{'1' * 32}.tmp", ".c.tmp")
    )
    old.parent.mkdir()
    for path in (old, new, other):
        path.write_bytes(b"half")
    os.utime(new, (time.time() + 60,) * 2)
    with atlas.locked():
        assert [path.exists() for path in (old, new, other)] == [False, True, True]


def test_a_file_and_its_folder_reach_the_disk_before_the_ledger_has_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 19, 18: a power cut must not leave a line without its file."""
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    names = lambda descriptor: os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path)  # noqa: E731
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(f"sync {names(fd)}"), fsync(fd)))
    monkeypatch.setattr(
        os, "replace", lambda a, b: (events.append(f"name {os.path.relpath(b, tmp_path)}"),
                                     replace(a, b)),
    )  # fmt: skip
    from tests.atlas.test_hostile_atlas import entry

    entry(tmp_path)
    kinds = [event.split(".")[0] + event[-4:] if ".tmp" in event else event for event in events]
    assert [event for event in kinds if "tmp" not in event] == [
        "name pairs/s.bin", "sync pairs", "sync .",
        "name ledger/pair/s.json", "sync ledger/pair", "sync ledger", "sync .",
    ]  # fmt: skip
    assert kinds[0].startswith("sync pairs/")
    assert events.index("sync .") < next(
        place for place, event in enumerate(events) if event.startswith("sync ledger/")
    )


def test_reading_tables_shortly_before_the_end_ends_well(tmp_path: Path) -> None:
    """Issue 19, 18: Arrow's threads let go of no Python file when the interpreter has ended."""
    path = tmp_path / "t.parquet"
    path.write_bytes(storage.table_bytes(pa.table({"a": list(range(1000))})))
    opened: list[object] = []
    original = pq.ParquetFile.__init__

    def noting(self: object, source: object, **options: object) -> None:
        opened.append(source)
        original(self, source, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pq.ParquetFile, "__init__", noting)
        storage.read_table(str(path), ["a"])
        storage.read_schema(str(path))
    assert opened == [str(path)] * 2
