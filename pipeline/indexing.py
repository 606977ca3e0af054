"""The tasks of the stage `index`: the FAISS factory, the training sample, the parts to merge."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vladmap.atlas import layout, storage
from vladmap.photos.cells import Nearby
from vladmap.pipeline.ledgers import inputs_of
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages.describe import DESCRIBE
from vladmap.pipeline.stages.index import INDEX, PARTS, PLACES, TRAIN
from vladmap.pipeline.stages.ingest import INGEST
from vladmap.retrieval.faiss_index import choose_factory
from vladmap.retrieval.names import SIGMA_M
from vladmap.schemas.records import NO_CELL, LedgerEntry, Task, shard_cell
from vladmap.schemas.rejects import UserError

TRAINED = "trained"
"""The name of the only shard in the ledger of trained indices."""

TRAINING_ROWS = 50_000
"""About how many descriptors an index is trained on, at most. Whole shards are taken."""


@dataclass(frozen=True)
class IndexPlan:
    """One model's index: the descriptors that go into it, and the FAISS factory.

    `chosen_for` is the count of images that the factory was chosen for; `weights` the fingerprint
    of the model that made the descriptors.
    """

    model: str
    descriptors: dict[str, LedgerEntry]  # by shard
    dimension: int
    weights: str
    factory: str
    chosen_for: int
    fingerprint: str

    @property
    def rows(self) -> dict[str, int]:
        """Descriptors of each shard."""
        return {shard: entry.file.rows for shard, entry in self.descriptors.items()}

    @property
    def count(self) -> int:
        """Descriptors of all shards."""
        return sum(self.rows.values())

    def training_task(self) -> Task:
        """Train an empty index on the descriptors of shards from all over the collection.

        Shards are sorted by place: the first would be those of one region.
        """
        shards = list(self.descriptors)
        wanted = min(len(shards), math.ceil(len(shards) * TRAINING_ROWS / self.count))
        rows = np.linspace(0, len(shards) - 1, wanted).round().astype(int)
        reads = [(layout.DESCRIPTORS, self.descriptors[shards[row]].file.path) for row in rows]
        output = layout.trained_index(self.model)
        return Task(TRAINED, NO_CELL, output, self.fingerprint, tuple(reads))

    def facts(self) -> tuple[tuple[str, str | int], ...]:
        """What is written beside the merged index."""
        return (
            ("factory", self.factory),
            ("chosen_for", self.chosen_for),
            ("dimension", self.dimension),
            ("model", self.model),
            ("model_fingerprint", self.weights),
        )


def plan_index(run: Run) -> IndexPlan:
    """The plan of the index of this run's model. UserError if no image has a descriptor."""
    descriptors = dict(sorted(run.ledger(DESCRIBE).items()))
    count = sum(entry.file.rows for entry in descriptors.values())
    if count == 0:
        raise UserError("index: no image has a descriptor; see rejects/ in the atlas")
    schema = storage.read_schema(run.atlas.path(next(iter(descriptors.values())).file.path))
    metadata = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    dimension, weights = int(metadata["vladmap:dimension"]), metadata["vladmap:model_fingerprint"]
    factory, chosen_for = index_factory(run, count, dimension)
    # An index is trained again for other weights: even the dimension may differ.
    fingerprint = TRAIN.fingerprint(factory=factory, seed=run.options.seed, weights=weights)
    model = run.options.model
    return IndexPlan(model, descriptors, dimension, weights, factory, chosen_for, fingerprint)


def index_factory(run: Run, count: int, dimension: int) -> tuple[str, int]:
    """The index's factory, and the count of images that it was chosen for.

    The factory is that of --factory, or the one recommended for this count. A recommended IVF
    factory is used until the count has grown fourfold.
    """
    if run.options.factory:
        return run.options.factory, count
    ledger_name = INDEX.ledger_name(run.options)
    run.atlas.ledger(ledger_name)
    try:
        if run.atlas.lost[ledger_name]:
            raise ValueError("not what was committed")
        facts = json.loads(
            storage.read_bytes(run.atlas.path(layout.index_facts(run.options.model)))
        )
        factory, chosen_for = str(facts["factory"]), int(facts["chosen_for"])
    except (OSError, ValueError, KeyError, TypeError):
        factory, chosen_for = "", 0
    if "IVF" in factory and chosen_for <= count < 4 * chosen_for:
        return factory, chosen_for
    return choose_factory(count, dimension), count


def part_tasks(run: Run, plan: IndexPlan) -> list[Task]:
    """For each shard: the codes of its descriptors by the trained index."""
    fingerprint = PARTS.fingerprint(index=plan.fingerprint)
    return [
        Task(
            shard,
            shard_cell(shard),
            layout.partial_index(plan.model, shard),
            fingerprint,
            reads=(
                (layout.DESCRIPTORS, entry.file.path),
                ("trained", layout.trained_index(plan.model)),
            ),
            inputs=(*inputs_of(run, DESCRIBE, [shard]), *inputs_of(run, TRAIN, [TRAINED])),
        )
        for shard, entry in plan.descriptors.items()
    ]


def place_tasks(run: Run, plan: IndexPlan) -> list[Task]:
    """One task for each shard: the codes of its smoothed descriptors by the trained index.

    Neighbours in space may lie in the shards of its cell and of the cells around it.
    """
    fingerprint = PLACES.fingerprint(index=plan.fingerprint, sigma_m=SIGMA_M)
    nearby: Nearby[str] = Nearby()
    for shard in plan.descriptors:
        nearby.add(shard_cell(shard), shard)
    tasks = []
    for shard, entry in plan.descriptors.items():
        around = shards_around(shard, nearby)
        neighbours = tuple(
            run.shared(("around", plan.descriptors[other].file.path))
            for other in around
            if other != shard
        )
        tasks.append(
            Task(
                shard,
                shard_cell(shard),
                layout.partial_places(plan.model, shard),
                fingerprint,
                reads=(
                    (layout.DESCRIPTORS, entry.file.path),
                    ("trained", layout.trained_index(plan.model)),
                    *neighbours,
                ),
                inputs=(
                    *inputs_of(run, DESCRIBE, around),
                    *inputs_of(run, INGEST, around, "directions"),
                    *inputs_of(run, TRAIN, [TRAINED]),
                ),
            )
        )
    return tasks


def shards_around(shard: str, nearby: Nearby[str]) -> list[str]:
    """The shard and those that lie near to its cell, sorted; itself without a cell."""
    return sorted({shard, *nearby.near(shard_cell(shard))})


def merge_task(
    run: Run,
    plan: IndexPlan,
    parts: Mapping[str, LedgerEntry],
    places: Mapping[str, LedgerEntry],
) -> Task:
    """Merge the shards' parts into the two indices that are searched."""
    shards = list(plan.descriptors)
    return Task(
        "global",
        NO_CELL,
        layout.global_index(plan.model),
        plan.fingerprint,
        reads=(
            ("trained", layout.trained_index(plan.model)),
            *(("parts", parts[shard].file.path) for shard in shards),
            *(("places", places[shard].file.path) for shard in shards),
            *((layout.DESCRIPTORS, plan.descriptors[shard].file.path) for shard in shards),
        ),
        inputs=(*inputs_of(run, PARTS, shards), *inputs_of(run, PLACES, shards)),
    )
