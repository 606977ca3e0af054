"""Localise: photographs of a listing -> `localisations/`, a row each, against another atlas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import apache_beam as beam
from apache_beam.utils.shared import Shared

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_shard
from vladmap.console import counter as progress
from vladmap.localisation.localiser import Asked, Localiser, opened
from vladmap.localisation.settings import LocaliseSettings
from vladmap.localisation.table import localisations_table, rejected_row
from vladmap.models.memory import one_thread_a_call
from vladmap.photos.headers.rows import require_file
from vladmap.schemas.localisation_tables import LocalisationStatus
from vladmap.schemas.records import LedgerEntry, Task
from vladmap.schemas.rejects import PhotoError
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

    A worker loads the map once. `dead` are (chunk, path) of listed files that are no longer there.
    """

    root: str
    against: Against
    dead: frozenset[tuple[str, str]] = frozenset()
    _loaded: Shared = field(default_factory=Shared)

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.ParDo(_Localise(self.root, self.against, self.dead, self._loaded))


class _Localise(beam.DoFn):
    def __init__(
        self, root: str, against: Against, dead: frozenset[tuple[str, str]], loaded: Shared
    ) -> None:
        self._root, self._against, self._dead, self._loaded = root, against, dead, loaded

    def setup(self) -> None:
        one_thread_a_call()  # the sums of a network do not depend on the number of cores
        self._localiser: Localiser = self._loaded.acquire(self._open)

    def _open(self) -> Localiser:
        chosen = self._against
        return opened(
            chosen.atlas,
            model=chosen.model,
            features=chosen.features,
            matcher=chosen.matcher,
            settings=chosen.settings,
            device=chosen.device,
        )

    def process(self, task: Task) -> Iterator[LedgerEntry]:
        listing = storage.read_table(storage.join(self._root, task.path("plan"))).to_pylist()
        rows = []
        for item in listing:
            if (task.shard, item["path"]) in self._dead:
                continue
            asked = Asked(item["path"], item["uri"], item["overrides"])
            try:
                require_file(item["kind"])
                rows += self._localiser.locate_all([asked])
            except PhotoError as error:
                rows.append(rejected_row(asked.names, error))
            progress.advance()
        counts = {each.value: 0 for each in LocalisationStatus}
        for row in rows:
            counts[row["status"]] += 1
        counters = StageCounters(STAGE)
        for name, count in counts.items():
            counters.add(name, count)
        yield commit_shard(self._root, STAGE, task, localisations_table(rows), counts=counts)
