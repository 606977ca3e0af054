"""Localise: photographs of a listing -> `localisations/`, a row each, against another atlas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import apache_beam as beam
from apache_beam.utils.shared import Shared

from vladmap.atlas import storage
from vladmap.atlas.atlas import Atlas
from vladmap.atlas.commit import commit_shard
from vladmap.console import counter as progress
from vladmap.localisation.localiser import Localiser
from vladmap.localisation.preparing import Asked
from vladmap.localisation.settings import LocaliseSettings
from vladmap.localisation.table import localisations_table, rejected_row
from vladmap.models.memory import one_thread_a_call
from vladmap.photos.processes import WorkerDied, WorkerPool
from vladmap.schemas.localisation_tables import LocalisationStatus
from vladmap.schemas.records import LedgerEntry, Task
from vladmap.schemas.rejects import PhotoError, RejectReason
from vladmap.transforms.counters import StageCounters

STAGE = "localise"


@dataclass(frozen=True)
class Against:
    """The atlas that photographs are localised in, and how."""

    atlas: str
    model: str
    features: str | None
    matcher: str
    device: str
    settings: LocaliseSettings


@dataclass(eq=False)
class LocalisePhotos(beam.PTransform):
    """Tasks of listing chunks -> ledger entries of `localisations/` in the atlas at `root`.

    A worker loads the map once, and reads photographs in as many processes as `workers`. `dead` are
    (chunk, path) of listed files that are no longer there.
    """

    root: str
    against: Against
    workers: int = 1
    dead: frozenset[tuple[str, str]] = frozenset()
    _loaded: Shared = field(default_factory=Shared)

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.ParDo(_Localise(self))


class _Localise(beam.DoFn):
    def __init__(self, asked: LocalisePhotos) -> None:
        self._root, self._against, self._workers = asked.root, asked.against, asked.workers
        self._dead, self._loaded = asked.dead, asked._loaded

    def setup(self) -> None:
        one_thread_a_call()  # the sums of a network do not depend on the number of cores
        self._localiser: Localiser = self._loaded.acquire(self._open)
        beside = self._workers > 1 and self._localiser.prepares_in_processes
        self._pool = WorkerPool(self._workers) if beside else None

    def teardown(self) -> None:
        if self._pool is not None:
            self._pool.close()

    def _open(self) -> Localiser:
        chosen = self._against
        return Localiser(
            Atlas(chosen.atlas),
            model=chosen.model,
            features=chosen.features,
            matcher=chosen.matcher,
            settings=chosen.settings,
            device=chosen.device,
        )

    def process(self, task: Task) -> Iterator[LedgerEntry]:
        listing = storage.read_table(storage.join(self._root, task.path("plan"))).to_pylist()
        asked = [
            Asked(item["path"], item["uri"], item["overrides"], item["kind"])
            for item in listing
            if (task.shard, item["path"]) not in self._dead
        ]
        prepare, rows = self._localiser.prepare, []
        prepared = map(prepare, asked) if self._pool is None else self._pool.map(prepare, asked)
        for each, found in zip(asked, prepared, strict=True):
            if isinstance(found, WorkerDied):
                crashed = PhotoError(RejectReason.CRASHED, "the process that read it died twice")
                rows.append(rejected_row(each.names, crashed))
            else:
                rows.append(self._localiser.row(found))
            progress.advance()
        counts = {each.value: 0 for each in LocalisationStatus}
        for row in rows:
            counts[row["status"]] += 1
        counters = StageCounters(STAGE)
        for name, count in counts.items():
            counters.add(name, count)
        yield commit_shard(self._root, STAGE, task, localisations_table(rows), counts=counts)
