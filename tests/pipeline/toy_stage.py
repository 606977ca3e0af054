"""A stage as anyone may add one: this module, and a line in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vladmap.pipeline.stage import Stage, Step

if TYPE_CHECKING:
    from vladmap.pipeline.run import Run

NAMES = Step("names", version=1, ledger="names-{options.model}", label="name list", unit="images")


def work(run: Run) -> None:
    """The names of each shard's images, one a line, backwards where there is a `--seed`."""
    from tests.pipeline.toy_transform import ListNames
    from vladmap.pipeline.ledgers import image_count, task_per_shard

    seed = run.options.seed
    run.execute(
        NAMES,
        task_per_shard(run, lambda shard: f"work/names/{shard}.txt", NAMES.fingerprint(seed=seed)),
        ListNames(run.atlas.root, NAMES.ledger_name(run.options), seed > 0),
        count=image_count(run),
    )


STAGE = Stage(
    name="names",
    title="list the names of the photographs",
    text="List the names of the photographs: work/names/.",
    work=work,
    estimate=lambda run, images: [f"names       {images} lines"],
    steps=(NAMES,),
    needs=("ingest",),
    options=("model", "max_pixels"),
    examples=("vladmap names --atlas atlas",),
)
