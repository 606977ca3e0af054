"""The transform of toy_stage.py."""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_entry
from vladmap.schemas.records import LedgerEntry, Task


@dataclass(eq=False)
class ListNames(beam.PTransform):
    """A task that reads `images` -> its names in a text file."""

    root: str
    ledger: str
    backwards: bool

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.Map(self._list)

    def _list(self, task: Task) -> LedgerEntry:
        table = storage.read_table(storage.join(self.root, task.path("images")), ["name"])
        names = sorted(table["name"].to_pylist(), reverse=self.backwards)
        file = storage.commit_file(self.root, task.output, "\n".join(names).encode(), len(names))
        return commit_entry(self.root, self.ledger, task, [file])
