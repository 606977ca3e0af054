"""The image pairs that are worth matching: `pairs/`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vladmap.pipeline.stage import Stage, Step

if TYPE_CHECKING:
    from vladmap.pipeline.run import Run

PAIR = Step("pair", version=3, unit="images")


def work(run: Run) -> None:
    """Propose candidates for each new image: by GPS, by descriptor, and by sequence."""
    from vladmap.pipeline import pairing
    from vladmap.pipeline.ledgers import image_count
    from vladmap.transforms.pair import PairImages

    evidence = pairing.rerank_settings(run)
    run.execute(
        PAIR,
        pairing.pair_tasks(run),
        PairImages(run.atlas.root, pairing.pair_settings(run, evidence)),
        count=image_count(run),
        device=run.options.device,
    )


def estimate(run: Run, images: int) -> list[str]:
    """How many pairs there are at most."""
    options = run.options
    each = options.near + options.everywhere + options.following
    return [f"pair        at most {images * each} pairs ({each} an image)"]


STAGE = Stage(
    name="pair",
    title="find the image pairs worth matching",
    text="Find the image pairs that are worth matching: pairs/.",
    work=work,
    estimate=estimate,
    steps=(PAIR,),
    needs=("ingest", "describe", "index"),
    options=(
        "max_pixels",
        "max_reject_rate",
        "model",
        "device",
        "accelerator",
        "threads",
        "factory",
        "near",
        "reach_m",
        "everywhere",
        "following",
        "rerank",
        "rerank_candidates",
        "patch_size",
        "gps_sigma_m",
        "features",
    ),
    group="pairs (pair)",
    examples=("vladmap pair --atlas atlas --reach-m 40",),
)
