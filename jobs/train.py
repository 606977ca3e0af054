"""`vladmap train`: a descriptor model from photographs that only GPS says the places of."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vladmap.console.numbers import not_negative, real, whole
from vladmap.evaluation.training_settings import TrainingData, TrainingSettings
from vladmap.jobs.command import Parser, guarded, leave, log_options, parser, recorded, words
from vladmap.jobs.evaluation_options import add_layout_options
from vladmap.models.kinds import PRECISION_NAMES, TRAINABLE
from vladmap.models.training.recipe import (
    GHOST,
    LITE,
    LOSSES,
    OPTIMISERS,
    RECIPES,
    SCHEDULES,
    Recipe,
)

_EPILOG = """\
recipes: `--loss triplet` is NetVLAD's as published, `--loss multi-similarity` the one that
SuperVLAD learns by; options that are given go before. See docs/training.md.

examples:
  vladmap train --data worlds --output run
  vladmap train --data atlas --output run --tuned-blocks 4 --project 512 --augmentation 1
  vladmap train --data worlds --validate seasons --aggregation supervlad --clusters 4 \\
    --loss multi-similarity --output run
  vladmap train --data worlds --output run --resume
"""

_HELP: dict[str, str] = {
    "loss": "what is made small",
    "epochs": "passes over the queries at most",
    "queries_an_epoch": "queries of a pass, drawn anew each; 0: all",
    "tuples": "queries of one step",
    "accumulate": "passes that a step's tuples are spread over, where memory is short",
    "positives": "potential positives of a query that are looked at, best first",
    "hardest": "hardest negatives of a query; as many of its last round come on top",
    "sampled": "negatives drawn for a query to find the hardest among",
    "refresh": "queries until the cache of descriptors is filled anew",
    "cached": "images of the database in the cache, beside those that its queries need",
    "margin": "of the triplet loss, on squared distances",
    "optimiser": "that takes the steps",
    "rate": "learning rate of the backbone",
    "head_rate": "times the rate: that of aggregation and projection",
    "weight_decay": "of all that learns",
    "schedule": "step halves the rate every 5 epochs, cosine lets it sink to nothing",
    "clip": "largest norm of a gradient; 0: any",
    "augmentation": "strength of the changes to colours, light, weather, sharpness, viewpoint",
    "variants": "changes of an image until the first come again; 0: others each epoch",
    "long_sides": "pixels; of several one is drawn each step (default: the backbone's own)",
    "patience": "epochs without a higher recall@5 until it ends",
    "seed": "of all that is random",
}
_CHOICES = {"loss": LOSSES, "optimiser": OPTIMISERS, "schedule": SCHEDULES}


def command_line() -> Parser:
    """The command line of the job."""
    options = parser(
        "train",
        "Train a descriptor model, weakly supervised: GPS says which photographs may show one\n"
        "place and which cannot. Writes best.safetensors, which every job takes as --checkpoint.",
        epilog=_EPILOG,
    )
    _add_data_options(options)
    options.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder of the run"
    )
    options.add_argument("--resume", action="store_true", help="go on after the last whole epoch")
    start = options.add_argument_group("the model to start from")
    start.add_argument(
        "--init", type=Path, metavar="FILE", help="a whole model, trained before (else the below)"
    )
    start.add_argument(
        "--backbone",
        default=LITE,
        metavar="NAME",
        help=f"{LITE} (trained on ImageNet, the default), {GHOST} (untrained), or a file",
    )
    start.add_argument("--aggregation", default="netvlad", choices=TRAINABLE)
    start.add_argument(
        "--clusters", type=whole(1), metavar="K", help="(default: 64, of supervlad 4)"
    )
    start.add_argument(
        "--project", type=whole(1), metavar="D", help="end in a projection to D numbers, from PCA"
    )
    start.add_argument(
        "--tuned-blocks",
        type=whole(0),
        metavar="N",
        help=f"last blocks of the backbone that learn too (default: 3, of {GHOST} all)",
    )
    start.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    start.add_argument(
        "--precision", choices=PRECISION_NAMES, help="(default: float32, on cuda bfloat16)"
    )
    start.add_argument(
        "--keep-gb",
        type=real(0, 1e6),
        metavar="N",
        help="of what frozen blocks make of an image, kept: with --variants, or without\n"
        "augmentation, most of the work is done once (default: 1, on cuda none)",
    )
    recipe = options.add_argument_group("the recipe")
    for field in dataclasses.fields(Recipe):
        _add_recipe_option(recipe, field)
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Train a model; returns the exit code."""
    parsed = command_line().parse_args(words(argv))

    def work() -> int:
        from vladmap.evaluation.training import train

        train(_settings(parsed))
        return 0

    return guarded(work, log_options(parsed))


def _settings(parsed: argparse.Namespace) -> TrainingSettings:
    base = RECIPES[parsed.loss or Recipe().loss]
    given = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(Recipe)}
    given = {name: value for name, value in given.items() if value is not None}
    given["long_sides"] = tuple(sorted(given.get("long_sides", ())))
    data = TrainingData(
        sources=tuple(parsed.data),
        layout=parsed.layout,
        split=parsed.split,
        since=parsed.since,
        last_share=parsed.last_share,
        validate=parsed.validate,
        validate_split=parsed.validate_split,
        frames_tolerance=parsed.frames_tolerance,
        validate_share=parsed.validate_share,
        threads=parsed.threads,
        memory_gb=parsed.memory_gb,
    )
    return TrainingSettings(
        data=data,
        recipe=dataclasses.replace(base, **given),
        output=parsed.output,
        backbone=parsed.backbone,
        aggregation=parsed.aggregation,
        resume=parsed.resume,
        init=parsed.init,
        clusters=parsed.clusters,
        project=parsed.project,
        tuned_blocks=parsed.tuned_blocks,
        device=parsed.device,
        precision=parsed.precision,
        keep_gb=parsed.keep_gb,
        options=recorded(vars(parsed)),
    )


def _add_data_options(options: argparse.ArgumentParser) -> None:
    """Add the options on where the photographs are and how they are read."""
    group = options.add_argument_group("the photographs")
    group.add_argument(
        "--data",
        required=True,
        nargs="+",
        type=Path,
        metavar="SOURCE",
        help="UTM folders, rendered worlds, MSLS, a CSV of coordinates, an atlas; several add up",
    )
    add_layout_options(group, split="train")
    group.add_argument(
        "--validate",
        type=Path,
        metavar="SOURCE",
        help="photographs to stop by, never learnt from (default: the val split of the first\n"
        "source, or areas held out)",
    )
    group.add_argument("--validate-split", default="val", metavar="SPLIT", help="(default: val)")
    group.add_argument(
        "--frames-tolerance",
        type=whole(0),
        default=0,
        metavar="N",
        help="where frame-aligned folders validate: frames a match may be off (default: 0)",
    )
    group.add_argument(
        "--validate-share",
        type=real(0, 1, above=True),
        default=0.15,
        metavar="S",
        help="share of the queries in the areas held out (default: 0.15)",
    )
    group.add_argument("--threads", type=whole(1, 1024), default=8, help="that decode (default: 8)")
    group.add_argument(
        "--memory-gb",
        type=real(0, 1e6),
        default=2.0,
        help="of decoded photographs kept (default: 2)",
    )


def _add_recipe_option(group: Any, field: dataclasses.Field[Any]) -> None:
    option = "--" + field.name.replace("_", "-")
    text = _HELP[field.name]
    default: Any = field.default
    if field.name == "long_sides":
        group.add_argument(
            "--long-side", dest=field.name, type=whole(16), nargs="+", metavar="N", help=text
        )
        return
    others = [
        f"{getattr(recipe, field.name)} for {loss}"
        for loss, recipe in RECIPES.items()
        if field.name != "loss" and getattr(recipe, field.name) != default
    ]
    text = f"{text} (default: {', '.join([str(default), *others])})"
    group.add_argument(
        option,
        type=type(default) if isinstance(default, str) else not_negative(default),
        choices=_CHOICES.get(field.name),
        default=None,
        help=text,
        metavar=None if field.name in _CHOICES else "N",
    )


if __name__ == "__main__":
    leave(main)
