"""The global FAISS index of the descriptors: `index/`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vladmap.pipeline.stage import Stage, Step

if TYPE_CHECKING:
    from vladmap.pipeline.options import BuildOptions
    from vladmap.pipeline.run import Run


def _trained(options: BuildOptions) -> dict[str, Any]:
    return {"factory": options.factory, "seed": options.seed}


TRAIN = Step(
    "index",
    ledger="index-{options.model}-train",
    label="train index",
    unit="indices",
    internal=True,
    alone=True,
    light=True,
    settings=_trained,
    after=("vocabulary",),
    lasting=True,
)
PARTS = Step(
    "index-parts",
    version=2,
    ledger="index-{options.model}-parts",
    label="index",
    unit="vectors",
    internal=True,
    light=True,
    settings=_trained,
    after=("describe", "train index"),
)
PLACES = Step(
    "places",
    version=2,
    ledger="index-{options.model}-places",
    label="index places",
    unit="vectors",
    internal=True,
    light=True,
    settings=_trained,
    after=("describe", "train index"),
)
INDEX = Step(
    "index",
    ledger="index-{options.model}",
    label="merge index",
    unit="vectors",
    alone=True,
    light=True,
    settings=_trained,
    after=("index", "index places"),
)


def work(run: Run) -> None:
    """Train the index, add the descriptors of each shard to a part of it, merge the parts.

    A second index holds the same images by descriptors that are averaged over their neighbours in
    space. Raises UserError where no image has a descriptor.
    """
    from vladmap.pipeline import indexing
    from vladmap.transforms.index import AddShards, AddSmoothed, MergeIndex, TrainIndex

    root, options = run.atlas.root, run.options
    plan = indexing.plan_index(run)
    count, rows = plan.count, plan.rows
    trained = run.ledger(TRAIN).get(indexing.TRAINED)
    # A trained index stays when the collection grows: training it again would change all codes.
    if trained is None or trained.fingerprint != plan.fingerprint:
        transform = TrainIndex(
            root, TRAIN.ledger_name(options), plan.factory, indexing.TRAINING_ROWS, options.device
        )
        task = plan.training_task()
        run.execute(TRAIN, [task], transform, device=options.device, rows=count)
    parts = run.execute(
        PARTS,
        indexing.part_tasks(run, plan),
        AddShards(root, PARTS.ledger_name(options), options.device),
        count=lambda task: rows[task.shard],
        device=options.device,
    )
    places = run.execute(
        PLACES,
        indexing.place_tasks(run, plan),
        AddSmoothed(root, PLACES.ledger_name(options), options.device),
        count=lambda task: rows[task.shard],
        device=options.device,
    )
    run.execute(
        INDEX,
        [indexing.merge_task(run, plan, parts, places)],
        MergeIndex(root, INDEX.ledger_name(options), plan.facts(), device=options.device),
        count=lambda task: count,
        device=options.device,
    )


STAGE = Stage(
    name="index",
    title="build the FAISS index",
    text="Build the global FAISS index of the descriptors: index/.",
    work=work,
    steps=(TRAIN, PARTS, PLACES, INDEX),
    needs=("ingest", "describe"),
    options=("model", "device", "accelerator", "factory"),
    group="their index (index)",
    examples=("vladmap index --atlas atlas --factory IVF1024,Flat",),
)
