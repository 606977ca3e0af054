"""The image pairs that are worth matching: `pairs/`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vladmap.features.names import RERANKING_BY_FEATURES
from vladmap.pipeline.stage import Stage, Step

if TYPE_CHECKING:
    from vladmap.pipeline.options import BuildOptions
    from vladmap.pipeline.run import Run


def _paired(options: BuildOptions) -> dict[str, Any]:
    return {
        "model": options.model,
        "near": options.near,
        "reach_m": options.reach_m,
        "everywhere": options.everywhere,
        "following": options.following,
        "gps_sigma_m": options.gps_sigma_m,
        "rerank": _rerank_choice(options),
        # The factory that is chosen by the size of the collection changes as it grows; pairs
        # made with an earlier one stay valid. Only --factory makes them stale.
        "factory": options.factory,
        # If larger photographs are allowed, existing shards gain images, and later shards
        # must be paired with these.
        "max_pixels": options.max_pixels,
    }


def _rerank_choice(options: BuildOptions) -> tuple[str, ...] | None:
    """The settings that re-ranking depends on; None without re-ranking."""
    if options.rerank == "none":
        return None
    by_features = options.rerank in RERANKING_BY_FEATURES
    evidence = options.features if by_features else f"size {options.patch_size}"
    return options.rerank, evidence, str(options.rerank_candidates)


PAIR = Step("pair", version=3, unit="images", settings=_paired, after=("describe", "organise"))


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
