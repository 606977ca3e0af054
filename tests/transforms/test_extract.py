"""Local features where a worker process dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.drives import write_drive
from vladmap.atlas.store import AtlasStore
from vladmap.jobs.main import main
from vladmap.photos.processes import WorkerDied
from vladmap.schemas.records import NO_CELL, Task
from vladmap.transforms.verify import _Extract


class _Dies:
    """A pool whose process dies of the second item, twice."""

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        for number, item in enumerate(items):
            yield WorkerDied("killed") if number == 1 else function(item)

    def close(self) -> None: ...


def test_a_photograph_that_kills_its_worker_twice_is_rejected_alone(tmp_path: Path) -> None:
    """Issue 19, 18: it ended the run."""
    write_drive(tmp_path / "drive", 3)
    root = str(tmp_path / "atlas")
    assert main(["ingest", "--images", str(tmp_path / "drive"), "--atlas", root]) == 0
    (entry,) = AtlasStore.open(root, create=False).ledger("ingest").values()
    task = Task("s", NO_CELL, "features/s.parquet", "p", reads=(("images", entry.file.path),))
    extract = _Extract(root, "features", "sift", 10**9, 2)
    extract._pool = _Dies()  # type: ignore[assignment]
    (made,) = extract.process(task)
    reasons = pq.read_table(f"{root}/rejects/features/s.parquet")["reason"].to_pylist()
    assert reasons.count("crashed") == 1
    assert made.counts["images"] + len(reasons) == 3
