"""Options that several jobs share: those that evaluate models and those that train them."""

from __future__ import annotations

import argparse
from pathlib import Path

from vladmap.console.numbers import MOST_SEED, real, whole
from vladmap.evaluation.names import FRAMES_SIGMA
from vladmap.evaluation.settings import MethodSettings, SetSettings
from vladmap.features.names import FEATURE_NAMES
from vladmap.models.kinds import PRECISION_NAMES
from vladmap.photos.names import LAYOUTS
from vladmap.retrieval.names import (
    REACH_FRAMES,
    REACH_M,
    SEQUENCE_FRAMES,
    SEQUENCE_METHODS,
    SIGMA_M,
)


def add_layout_options(options: argparse._ActionsContainer, split: str) -> None:
    """Add the options on the layout of a source and on which of its photographs are the queries."""
    options.add_argument(
        "--layout", default="auto", choices=("auto", *LAYOUTS), help="default: what it looks like"
    )
    options.add_argument(
        "--split",
        default=split,
        help=f"of UTM folders and MSLS: train, val or test (default: {split})",
    )
    options.add_argument(
        "--since",
        metavar="TIME",
        help="of an atlas: images captured from this instant on (ISO 8601, UTC) are the queries",
    )
    options.add_argument(
        "--last-share",
        type=real(0, 1, above=True),
        default=0.2,
        metavar="S",
        help="of an atlas, without --since: the share captured last are the queries (default: 0.2)",
    )


def add_set_options(options: argparse.ArgumentParser) -> None:
    """Add SOURCE and the options on how its photographs are used."""
    options.add_argument("source", metavar="SOURCE", type=Path, help="folder, CSV or atlas")
    group = options.add_argument_group("the photographs")
    add_layout_options(group, split="test")
    group.add_argument(
        "--positives-m",
        type=real(0, above=True),
        default=25.0,
        metavar="M",
        help="metres within which a photograph shows the query's place (default: 25)",
    )
    group.add_argument(
        "--frames-tolerance",
        type=whole(0),
        default=0,
        metavar="N",
        help="of frame-aligned folders: frames that a match may be off (default: 0)",
    )
    group.add_argument(
        "--smooth",
        type=real(0),
        metavar="S",
        help="metres (or frames) over which the database's descriptors are smoothed with those of\n"
        f"photographs taken beside them, 0 for none (default: {SIGMA_M:g}, at most a quarter of\n"
        f"--positives-m; of frames {FRAMES_SIGMA:g} times --frames-tolerance)",
    )


def add_model_options(options: argparse.ArgumentParser) -> None:
    """Add the options on how models run and on re-ranking."""
    group = options.add_argument_group("how models run")
    group.add_argument("--precision", default="float32", choices=PRECISION_NAMES)
    group.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    group.add_argument(
        "--decode",
        default="cpu",
        choices=("cpu", "gpu"),
        help="who decodes JPEGs for the model; gpu needs --device cuda (default: cpu)",
    )
    group.add_argument(
        "--seed", type=whole(0, MOST_SEED), default=0, help="of what is learnt (default: 0)"
    )
    group.add_argument(
        "--rerank-candidates",
        type=whole(1),
        default=20,
        metavar="C",
        help="best matches that re-ranking puts in order (default: 20)",
    )
    group.add_argument(
        "--features",
        default="sift",
        choices=FEATURE_NAMES,
        help="local features that `features` re-ranks by, as in a build (default: sift)",
    )
    group.add_argument(
        "--dimension",
        type=whole(0),
        metavar="D",
        help="numbers that a descriptor is reduced to where words are learnt, 0 for no reduction\n"
        "(default: what suits the model)",
    )
    group.add_argument("--patch-size", type=whole(1, 30), default=5, help="cells (default: 5)")
    group.add_argument(
        "--patch-dimension",
        type=whole(1),
        default=512,
        help="numbers of a patch, where its whitening is learnt (default: 512)",
    )


def add_sequence_option(options: argparse._ActionsContainer, action: str) -> None:
    """Add --sequence."""
    options.add_argument(
        "--sequence",
        action=action,
        metavar="NAME[=N]",
        help=f"match each drive as one: {', '.join(SEQUENCE_METHODS)}.\n"
        f"N: photographs of a window (default: {SEQUENCE_FRAMES}, of delta 16); of hmm the\n"
        f"longest move between two (default: {REACH_M:g} m or {REACH_FRAMES:g} frames).\n"
        "By default the database is then not smoothed",
    )


def set_settings(parsed: argparse.Namespace) -> SetSettings:
    """The settings that the options of `add_set_options` have."""
    return SetSettings(
        source=parsed.source,
        layout=parsed.layout,
        split=parsed.split,
        positives_m=parsed.positives_m,
        frames_tolerance=parsed.frames_tolerance,
        since=parsed.since,
        last_share=parsed.last_share,
    )


def method_settings(parsed: argparse.Namespace) -> MethodSettings:
    """The settings that the options of `add_model_options` and `--smooth` have."""
    return MethodSettings(
        device=parsed.device,
        precision=parsed.precision,
        decode=parsed.decode,
        seed=parsed.seed,
        smooth=parsed.smooth,
        rerank_candidates=parsed.rerank_candidates,
        features=parsed.features,
        dimension=parsed.dimension,
        patch_size=parsed.patch_size,
        patch_dimension=parsed.patch_dimension,
    )
