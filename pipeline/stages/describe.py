"""One global descriptor for each image: `descriptors/`, and patches where they re-rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vladmap.pipeline.stage import Stage, Step
from vladmap.retrieval.names import BY_PATCHES

if TYPE_CHECKING:
    from vladmap.pipeline.run import Run

VOCABULARY = Step(
    "vocabulary",
    version=4,
    ledger="vocabulary-{options.model}",
    unit="images",
    internal=True,
    alone=True,
)
DESCRIBE = Step("describe", version=3, ledger="describe-{options.model}", unit="images")


def work(run: Run) -> None:
    """Learn the model's visual words if it needs any, then describe every new image."""
    from dataclasses import replace
    from functools import partial

    from vladmap.atlas import layout
    from vladmap.pipeline.ledgers import image_count, task_per_shard
    from vladmap.pipeline.options import worker_threads
    from vladmap.pipeline.rejects import check_ledger_rejects
    from vladmap.pipeline.vocabulary import model_weights
    from vladmap.transforms.describe import DescribeImages, ModelSettings

    options, ledger_name = run.options, DESCRIBE.ledger_name(run.options)
    settings = ModelSettings(
        name=options.model,
        checkpoint=options.checkpoint,
        device=options.device,
        precision=options.precision,
        batch_size=options.batch_size,
        max_pixels=options.max_pixels,
        threads=worker_threads(options, run.in_process),
        patch_size=options.patch_size if options.rerank in BY_PATCHES else 0,
        patches=layout.patches_folder(options.model),
        compile=options.compile,
    )
    weights = model_weights(run, settings)
    settings = replace(settings, weights=weights.file.path, weights_digest=weights.file.digest)
    fingerprint = DESCRIBE.fingerprint(
        weights=weights.content,
        precision=options.precision,
        model=options.model,
        patch_size=settings.patch_size,
        compiled=options.compile,
    )
    ledger = run.execute(
        DESCRIBE,
        task_per_shard(run, partial(layout.descriptors, options.model), fingerprint),
        DescribeImages(run.atlas.root, ledger_name, settings),
        count=image_count(run),
        device=options.device,
    )
    check_ledger_rejects(run, "describe", ledger_name, ledger)


def estimate(run: Run, images: int) -> list[str]:
    """How many images are to be described, and the size of their patches."""
    from vladmap.console.numbers import human_bytes
    from vladmap.models.registry import patch_dimension
    from vladmap.retrieval.stored_patches import bytes_an_image

    options = run.options
    done = sum(entry.file.rows for entry in run.ledger(DESCRIBE).values())
    lines = [f"describe    {max(images - done, 0)} images by {options.model} on {options.device}"]
    if options.rerank in BY_PATCHES:
        # For a photograph of 640 x 480 pixels; smaller inputs have fewer patches.
        patches = (30 - options.patch_size + 1) * (40 - options.patch_size + 1)
        brought = patch_dimension(options.model, options.checkpoint or None)
        each_image = bytes_an_image([patches], brought or options.patch_dimension, "int8")
        lines.append(
            f"patches     at most {each_image:,} bytes an image, "
            f"{human_bytes(images * each_image)} on disk"
        )
    return lines


STAGE = Stage(
    name="describe",
    title="compute global descriptors",
    text="Compute one global descriptor for each image: descriptors/.",
    work=work,
    estimate=estimate,
    steps=(VOCABULARY, DESCRIBE),
    needs=("ingest",),
    options=(
        "max_pixels",
        "max_reject_rate",
        "model",
        "checkpoint",
        "clusters",
        "whiten",
        "dimension",
        "learn",
        "vocabulary_images",
        "relearn",
        "device",
        "precision",
        "compile",
        "batch_size",
        "threads",
        "rerank",
        "patch_size",
        "patch_dimension",
    ),
    group="global descriptors (describe)",
    examples=("vladmap describe --atlas atlas --model vlad",),
)
