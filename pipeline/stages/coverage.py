"""What is covered of a city, cell by cell: `coverage.parquet`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vladmap.pipeline.stage import Stage, Step

if TYPE_CHECKING:
    from vladmap.pipeline.run import Run

COVERAGE = Step(
    "coverage",
    unit="images",
    alone=True,
    light=True,
    told=True,
    after=("organise", "describe", "features", "merge"),
)


def work(run: Run) -> None:
    """Count the photographs, registered and rejected ones of each H3 cell, in one task."""
    from vladmap.atlas import layout
    from vladmap.pipeline.ledgers import image_shards, inputs_of, reject_paths
    from vladmap.pipeline.stages.describe import DESCRIBE
    from vladmap.pipeline.stages.ingest import INGEST
    from vladmap.pipeline.stages.merge import MERGE
    from vladmap.pipeline.stages.verify import FEATURES
    from vladmap.schemas.records import NO_CELL, Task
    from vladmap.transforms.coverage import MeasureCoverage

    images = image_shards(run)
    task = Task(
        "all",
        NO_CELL,
        layout.COVERAGE,
        COVERAGE.fingerprint_of(run.options),
        reads=(
            *((layout.IMAGES, entry.file.path) for entry in images.values()),
            *((layout.REJECTS, path) for path in reject_paths(run)),
            ("poses", layout.POSES),
        ),
        inputs=tuple(
            item
            for step in (INGEST, DESCRIBE, FEATURES, MERGE)
            for item in inputs_of(run, step, sorted(run.ledger(step)))
        ),
    )
    count = sum(entry.counts["images"] for entry in images.values())
    run.execute(
        COVERAGE,
        [task],
        MeasureCoverage(run.atlas.root, COVERAGE.ledger_name(run.options)),
        count=lambda task: count,
    )


STAGE = Stage(
    name="coverage",
    title="count photographs and poses by cell",
    text="Count the photographs, and those in the map, of each H3 cell: coverage.parquet.",
    work=work,
    steps=(COVERAGE,),
    needs=("ingest", "merge"),
    options=("model", "features"),
    examples=("vladmap coverage --atlas atlas",),
)
