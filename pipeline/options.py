"""Every option of a build: its default, its meaning, and the values that are allowed.

One dataclass is the single source: the command line, `--config` and `--help` are derived from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vladmap.console.numbers import MOST_SEED, Range
from vladmap.features.names import (
    BETWEEN_DRIVES,
    FEATURE_NAMES,
    MATCHER_NAMES,
    NEAREST,
    NO_SECOND,
    RERANKING_BY_FEATURES,
)
from vladmap.models.kinds import DEFAULT_DIMENSION, MODEL_NAMES
from vladmap.photos.machine import usable_cores
from vladmap.retrieval.names import BY_PATCHES

AS_PUBLISHED = -1
"""A value for a number of dimensions: the one that the model is published with."""

AUTO = "auto"
"""In place of a choice: what suits the device."""


def _option(
    default: Any,
    text: str,
    *,
    choices: Sequence[str] = (),
    metavar: str = "",
    within: Range | None = None,
    everyones: bool = False,
) -> Any:
    """`within` is the range of a number; an option that is `everyones` is read by all stages."""
    metadata = {
        "help": text,
        "choices": choices,
        "metavar": metavar,
        "within": within,
        "everyones": everyones,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build. Each stage declares which of them it reads (pipeline/stages/).

    An option that changes the content of an atlas is part of the fingerprints of what it changes.
    """

    images: str = _option(
        "",
        "folder, glob or manifest (.csv .parquet .geojson) of photographs; gs:// and s3:// too",
        metavar="SOURCE",
    )
    atlas: str = _option("", "folder of the atlas, made if need be", everyones=True, metavar="DIR")
    max_pixels: int = _option(
        200_000_000,
        "reject photographs with more pixels than this",
        within=Range(1, 2**40),
    )
    max_reject_rate: float = _option(
        0.5,
        "end the run when more than this share of the photographs is rejected",
        within=Range(0, 1),
    )
    shard_images: int = _option(
        200,
        "images in a shard, the unit of work and of resume",
        within=Range(1, 100_000),
    )
    cell_resolution: int = _option(
        8,
        "H3 resolution of the cells",
        within=Range(5, 10),
    )  # cells of 250 to 0.02 km2
    sequence_gap_s: float = _option(
        60.0,
        "seconds between two photographs that end a sequence",
        within=Range(0, 1e9, above=True),
    )
    sequence_gap_m: float = _option(
        600.0,
        "metres between two photographs that end a sequence",
        within=Range(0, 1e8, above=True),
    )
    model: str = _option(
        "netvlad-lite",
        "global descriptor",
        choices=MODEL_NAMES,
    )
    checkpoint: str = _option(
        "",
        "weights of the model, in any layout that `vladmap convert --help` lists",
        metavar="FILE",
    )
    clusters: int = _option(
        0,
        "visual words learnt from the collection; 0: as many as the model is published with, and\n"
        "twice as many where descriptors are reduced and no patches wanted",
        within=Range(0, 65_536),
    )
    whiten: int = _option(
        0,
        "PCA-whiten descriptors to this dimension, where ten times as many images were sampled",
        metavar="D",
        within=Range(0, 65_536),
    )
    dimension: int = _option(
        AS_PUBLISHED,
        "numbers that descriptors are reduced to by PCA, whitened by half, learnt from the\n"
        "collection; at most as many as it has images; 0: leave them whole, -1: what is best for "
        "the model",
        metavar="D",
        within=Range(AS_PUBLISHED, 65_536),
    )
    learn: bool = _option(
        False,
        "learn the words from the collection although the checkpoint has its own",
    )
    vocabulary_images: int = _option(
        256,
        "photographs that the visual words are learnt from",
        within=Range(1, 1_000_000),
    )
    relearn: bool = _option(
        False,
        "learn the visual words anew although the atlas has some",
    )
    device: str = _option(
        "cpu",
        "where networks run: models, learned local features and their matchers (SIFT and nearest\n"
        "neighbours use the CPU); an absent GPU is an error",
        choices=("cpu", "cuda"),
    )
    accelerator: str = _option(
        "",
        "GPU that Dataflow gives the workers of --device cuda, as type:nvidia-l4;count:1;"
        "install-nvidia-driver",
        metavar="GPU",
    )
    precision: str = _option(
        AUTO,
        "arithmetic of the models; auto: float16 on a GPU, where it is closer to float32 than "
        "bfloat16 and faster, else float32",
        choices=(AUTO, "float32", "bfloat16", "float16"),
    )
    decode: str = _option(
        AUTO,
        "who decodes JPEGs for the model: the CPU, or the GPU, several times as fast, whose pixels "
        "differ by a third of a grey level; auto: as the atlas was begun, a new one by the device",
        choices=(AUTO, "cpu", "gpu"),
    )
    compile: bool = _option(
        False,
        "compile the model's network for each size of image: seconds that long runs may repay "
        "(on an H100 from some 30,000 images of VGG16 on, 200,000 of netvlad-lite)",
    )
    batch_size: int = _option(
        0,
        "images in one forward pass; 0: 64 on a GPU, else 16",
        within=Range(0, 4096),
    )
    threads: int = _option(
        0,
        "threads that read and decode, processes that extract SIFT, and tiles that are mapped at "
        "once, in each worker; 0: as many as cores where the worker is this process, else 1",
        within=Range(0, 1024),
    )
    factory: str = _option(
        "",
        "FAISS factory string; by default Flat below 20,000 images, IVF above",
    )
    near: int = _option(
        20,
        "neighbours by descriptor among images within reach of GPS",
        within=Range(1, 10_000),
    )
    reach_m: float = _option(
        60.0,
        "metres within which two photographs may show the same scene",
        within=Range(0, 400, above=True),
    )  # photographs farther apart share no scene
    everywhere: int = _option(
        5,
        "neighbours by descriptor in the whole collection (loops, images without GPS)",
        within=Range(0, 10_000),
    )
    following: int = _option(
        5,
        "neighbours before it in the image's sequence",
        within=Range(0, 10_000),
    )
    rerank: str = _option(
        "none",
        "order the neighbours in the whole collection by the inliers of local features (those of "
        "XFeat matched by LighterGlue: 25 times the time), or by patches (rapid score, RANSAC); "
        "what each is worth: docs/performance.md",
        choices=("none", *BY_PATCHES, *RERANKING_BY_FEATURES),
    )
    rerank_candidates: int = _option(
        20,
        "neighbours by descriptor that are put in order",
        within=Range(1, 10_000),
    )
    patch_size: int = _option(
        5,
        "cells along a patch, where patches re-rank",
        within=Range(1, 30),
    )
    patch_dimension: int = _option(
        512,
        "PCA-whiten patches to this dimension; checkpoints with a PCA bring their own",
        within=Range(1, 65_536),
    )
    gps_sigma_m: float = _option(
        5.0,
        "GPS accuracy (one sigma) of photographs that do not state theirs",
        within=Range(0, 10_000, above=True),
    )
    features: str = _option("sift", "local features", choices=FEATURE_NAMES)
    matcher: str = _option(
        NEAREST,
        "what matches the local features of a pair: nearest neighbours of their descriptors, or a "
        "network, which may take a second",
        choices=MATCHER_NAMES,
    )
    between_drives: str = _option(
        NO_SECOND,
        "local features by which their network (LighterGlue, LightGlue) matches a pair of two "
        "drives in which --features find too little, for drives in another season or light; "
        "every photograph has both kinds extracted",
        choices=(NO_SECOND, *BETWEEN_DRIVES),
    )
    tile_images: int = _option(
        1000,
        "images in a tile, overlap included",
        within=Range(20, 1_000_000),
    )
    tile_minutes: float = _option(
        60.0,
        "minutes after which the mapping of a tile is given up",
        within=Range(0, 100_000, above=True),
    )
    seed: int = _option(
        0,
        "seed of everything random",
        everyones=True,
        within=Range(0, MOST_SEED),
    )


def flag_of(name: str) -> str:
    """The flag of an option on a command line."""
    return "--" + name.replace("_", "-")


def learning_options(options: BuildOptions) -> str:
    """The given options that are about learning from the collection."""
    given = {
        "--clusters": options.clusters > 0,
        "--whiten": options.whiten > 0,
        "--dimension": options.dimension > 0,
        "--learn": options.learn,
        "--relearn": options.relearn,
    }
    return ", ".join(name for name, there in given.items() if there)


def reduced_to(options: BuildOptions) -> int:
    """The dimension that descriptors are reduced to if words are learnt; 0 for no reduction."""
    if options.dimension != AS_PUBLISHED:
        return options.dimension
    return 0 if options.whiten else DEFAULT_DIMENSION[options.model]


def precision_of(options: BuildOptions) -> str:
    """The arithmetic of the models."""
    if options.precision != AUTO:
        return options.precision
    return "float16" if options.device == "cuda" else "float32"


def precision_asked_for(options: BuildOptions) -> str:
    """The arithmetic that descriptors are said to have been made with.

    What suits the device is the same numbers but for rounding: the same everywhere.
    """
    return "float32" if options.precision == AUTO else options.precision


def batch_images(options: BuildOptions) -> int:
    """Images in one forward pass."""
    return options.batch_size or (64 if options.device == "cuda" else 16)


def worker_threads(options: BuildOptions, in_process: bool) -> int:
    """Threads (or processes) in each worker; with remote workers one, as each has one core."""
    return options.threads or (usable_cores() if in_process else 1)
