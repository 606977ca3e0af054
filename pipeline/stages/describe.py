"""One global descriptor for each image: `descriptors/`, and patches where they re-rank."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from vladmap.models.kinds import CPU_ALONE
from vladmap.pipeline.options import AUTO, precision_asked_for, reduced_to
from vladmap.pipeline.stage import Stage, Step
from vladmap.pipeline.stages.ingest import CUT
from vladmap.retrieval.names import BY_PATCHES

if TYPE_CHECKING:
    from vladmap.pipeline.options import BuildOptions
    from vladmap.pipeline.run import Run

log = logging.getLogger("vladmap")


def _learnt(options: BuildOptions) -> dict[str, Any]:
    precision = precision_asked_for(options)
    patches = options.rerank in BY_PATCHES
    return {
        "model": options.model,
        "clusters": options.clusters,
        "whiten": options.whiten,
        "dimension": reduced_to(options),
        "learn": options.learn,
        "images": options.vocabulary_images,
        "seed": options.seed,
        "patches": (options.patch_dimension, options.patch_size) if patches else None,
        # Reduction and whitening are fitted to descriptors, which depend on the precision.
        **({"precision": precision} if precision != "float32" else {}),
    }


def _described(options: BuildOptions) -> dict[str, Any]:
    return {
        "precision": precision_asked_for(options),
        "model": options.model,
        # The 2 is of the way in which patches are summed.
        "patch_size": (options.patch_size, 2) if options.rerank in BY_PATCHES else 0,
        "compiled": options.compile,
    }


VOCABULARY = Step(
    "vocabulary",
    version=4,
    ledger="vocabulary-{options.model}",
    unit="images",
    internal=True,
    alone=True,
    settings=_learnt,
    lasting=True,
)
DESCRIBE = Step(
    "describe",
    version=3,
    ledger="describe-{options.model}",
    unit="images",
    settings=_described,
    after=("vocabulary", *CUT),
)


def fingerprint_of(options: BuildOptions, weights: str, decode: str) -> str:
    """The fingerprint of descriptors by weights of the identity `weights`, of photographs that the
    device `decode` decodes."""
    decoded = {"decode": decode} if decode == "gpu" else {}
    return DESCRIBE.fingerprint_of(options, weights=weights, **decoded)


def work(run: Run) -> None:
    """Learn the model's visual words if it needs any, then describe every new image."""
    from dataclasses import replace
    from functools import partial

    from vladmap.atlas import layout
    from vladmap.pipeline.ledgers import image_count, task_per_shard
    from vladmap.pipeline.options import batch_images, precision_of, worker_threads
    from vladmap.pipeline.rejects import check_ledger_rejects
    from vladmap.pipeline.vocabulary import model_weights
    from vladmap.transforms.describe import DescribeImages, ModelSettings

    options, ledger_name = run.options, DESCRIBE.ledger_name(run.options)
    threads, on_gpu = worker_threads(options, run.in_process), options.device == "cuda"
    settings = ModelSettings(
        name=options.model,
        checkpoint=options.checkpoint,
        device=options.device,
        precision=precision_of(options),
        batch_size=batch_images(options),
        max_pixels=options.max_pixels,
        threads=threads,
        # Beside a CPU's arithmetic threads read as fast, and processes cost memory.
        processes=threads if on_gpu else 0,
        patch_size=options.patch_size if options.rerank in BY_PATCHES else 0,
        patches=layout.patches_folder(options.model),
        compile=options.compile,
    )
    weights = model_weights(run, settings)
    settings = replace(settings, weights=weights.file.path, weights_digest=weights.file.digest)

    by_gpu, by_cpu = (fingerprint_of(options, weights.content, each) for each in ("gpu", "cpu"))
    decode = decoder_of(run, by_gpu, by_cpu)
    fingerprint = by_gpu if decode == "gpu" else by_cpu
    settings = replace(settings, decode_on_device=decode == "gpu" and on_gpu)
    ledger = run.execute(
        DESCRIBE,
        task_per_shard(run, partial(layout.descriptors, options.model), fingerprint),
        DescribeImages(run.atlas.root, ledger_name, settings),
        count=image_count(run),
        device=options.device,
    )
    check_ledger_rejects(run, "describe", ledger_name, ledger)


def decoder_of(run: Run, by_gpu: str, by_cpu: str) -> str:
    """Whose pixels descriptors are made of: `cpu` or `gpu`.

    Unless told otherwise an atlas stays as it was begun, which the fingerprints of its shards say,
    on whatever device it goes on; a new one is begun by the device.
    """
    from importlib.util import find_spec

    options = run.options
    if options.decode != AUTO:
        return options.decode
    if options.model in CPU_ALONE:
        return "cpu"
    known = {entry.fingerprint for entry in run.ledger(DESCRIBE).values()}
    if by_gpu in known:
        if options.device == "cpu":
            log.info(
                "describe: this atlas was begun with photographs decoded by a GPU; the CPU decodes "
                "those that are new, to pixels that differ by a third of a grey level"
            )
        return "gpu"
    if by_cpu in known or options.device == "cpu":
        return "cpu"
    if find_spec("torchvision") is None:
        log.warning(
            "describe: without torchvision the CPU decodes, several times slower: "
            "pip install 'vladmap[gpu]', or say --decode cpu"
        )
        return "cpu"
    return "gpu"


def estimate(run: Run, images: int) -> list[str]:
    """What describes the images, and the size of their patches."""
    from vladmap.console.numbers import human_bytes
    from vladmap.models.registry import patch_dimension
    from vladmap.retrieval.stored_patches import bytes_an_image

    options = run.options
    lines = [f"describe    by {options.model} on {options.device}"]
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
        "accelerator",
        "precision",
        "decode",
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
