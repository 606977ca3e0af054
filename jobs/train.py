"""`vladmap train`: a descriptor model from photographs that only GPS says the places of."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jobs.command import guarded, leave, parser, words
from jobs.training_data import add_data_options, read_data
from models import ghost
from models.backbones import Backbone, backbone, installed
from models.base import FixedSize, InputSize, Pixels
from models.checkpoints import is_vocabulary, read_weights
from models.formats import Network, network, to_bytes
from models.local import PRECISIONS
from models.pictures import Images, in_chunks
from models.recipe import LOSSES, OPTIMISERS, RECIPES, SCHEDULES, Recipe
from models.trainable import (
    AGGREGATIONS,
    FORMAT,
    TrainableModel,
    calibrate,
    learnt_aggregation,
    learnt_projection,
    trainable,
)
from models.training import Advance, Trainer
from models.training_files import BEST, START, STATE, write_file
from models.whitening import IMAGES_PER_DIMENSION
from schemas.rejects import UserError

LITE, GHOST = "efficientnet-lite0", "ghost"

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

_SAMPLED_IMAGES = 2000
_CALIBRATED_ON = 32
_AT_ONCE = 32

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


def main(argv: Sequence[str] | None = None) -> int:
    """Train a model; returns the exit code."""
    options = parser(
        "train",
        "Train a descriptor model, weakly supervised: GPS says which photographs may show one\n"
        "place and which cannot. Writes best.safetensors, which every job takes as --checkpoint.",
        epilog=_EPILOG,
    )
    add_data_options(options)
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
    start.add_argument("--aggregation", default="netvlad", choices=AGGREGATIONS)
    start.add_argument("--clusters", type=int, metavar="K", help="(default: 64, of supervlad 4)")
    start.add_argument(
        "--project", type=int, metavar="D", help="end in a projection to D numbers, from PCA"
    )
    start.add_argument(
        "--tuned-blocks",
        type=int,
        metavar="N",
        help=f"last blocks of the backbone that learn too (default: 3, of {GHOST} all)",
    )
    start.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    start.add_argument(
        "--precision", choices=[*PRECISIONS], help="(default: float32, on cuda bfloat16)"
    )
    start.add_argument(
        "--keep-gb",
        type=float,
        metavar="N",
        help="of what frozen blocks make of an image, kept: with --variants, or without\n"
        "augmentation, most of the work is done once (default: 1, on cuda none)",
    )
    recipe = options.add_argument_group("the recipe")
    for field in dataclasses.fields(Recipe):
        _add_recipe_option(recipe, field)
    parsed = options.parse_args(words(argv))

    def work() -> int:
        train(parsed)
        return 0

    return guarded(work, parsed)


def train(parsed: argparse.Namespace) -> None:
    """Make the model to start from, train it, and say what came of it."""
    recipe = _recipe(parsed)
    begun = (parsed.output / STATE).exists()
    if begun and not parsed.resume:
        raise UserError(f"{parsed.output} holds a run: go on by --resume, or name another folder")
    # cuBLAS adds up in the same order each time only where it is told to.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with tqdm(disable=None, leave=False, unit=" images") as bar:

        def watch(what: str, total: int) -> Advance:
            bar.reset(total)
            bar.set_description(what)
            return bar.update

        net, first = _foundation(parsed, recipe)
        training, validation = read_data(
            parsed, net.backbone.preprocessing.size, recipe.seed, watch
        )
        if begun:
            first = (parsed.output / START).read_bytes()
        else:
            first = _start(parsed, recipe, net, first, training.database)
            write_file(parsed.output / START, first)
        model = trainable(
            network(read_weights(first)),
            _tuned_blocks(parsed, net),
            parsed.device,
            parsed.precision or ("bfloat16" if parsed.device == "cuda" else "float32"),
        )
        counts = {
            "queries": len(training.queries),
            "queries with potential positives": len(training.usable),
            "database": len(training.database),
            "validation queries": len(validation.queries),
            "validation database": len(validation.database),
        }
        tqdm.write(", ".join(f"{name}: {count}" for name, count in counts.items()))
        about = {"options": _told(parsed), "recipe": dataclasses.asdict(recipe), "counts": counts}
        write_file(
            parsed.output / "training.json",
            (json.dumps(about, indent=1, sort_keys=True) + "\n").encode(),
        )
        trainer = Trainer(
            model,
            recipe,
            training,
            validation,
            parsed.output,
            first,
            watch,
            _kept_bytes(parsed),
        )
        progress = trainer.run(begun, lambda row: tqdm.write(_line(row)))
    best = progress.best()
    row = progress.curve[best]
    print(
        f"best after epoch {best}: recall@1 {100 * row['recall@1']:.1f} %, at the start "
        f"{100 * progress.curve[0]['recall@1']:.1f} %"
    )
    print(
        f"evaluate it:\n  vladmap evaluate {parsed.data[0]} --split test "
        f"--model {_model_name(net, parsed)} --checkpoint {parsed.output / BEST}"
    )


def _add_recipe_option(group: Any, field: dataclasses.Field[Any]) -> None:
    option = "--" + field.name.replace("_", "-")
    text, default = _HELP[field.name], field.default
    if field.name == "long_sides":
        group.add_argument(
            "--long-side", dest=field.name, type=int, nargs="+", metavar="N", help=text
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
        type=type(default),
        choices=_CHOICES.get(field.name),
        default=None,
        help=text,
        metavar=None if field.name in _CHOICES else "N",
    )


def _recipe(parsed: argparse.Namespace) -> Recipe:
    base = RECIPES[parsed.loss or Recipe().loss]
    given = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(Recipe)}
    given = {name: value for name, value in given.items() if value is not None}
    given["long_sides"] = tuple(sorted(given.get("long_sides", ())))
    return dataclasses.replace(base, **given)


def _foundation(parsed: argparse.Namespace, recipe: Recipe) -> tuple[Network, bytes]:
    """The network that the options name, without what is still to be learnt, and its file."""
    source = b""
    if parsed.init is not None or parsed.backbone not in (LITE, GHOST):
        path = parsed.init or Path(parsed.backbone)
        file = read_weights(path)
        if is_vocabulary(file):
            raise UserError(f"{path} is a vocabulary: train from its backbone instead")
        found, source = network(file), path.read_bytes()
        if parsed.init is None:
            found = Network(FORMAT, found.backbone)
        elif found.aggregation is None:
            raise UserError(f"--init {path} is a backbone alone: name it by --backbone")
    elif parsed.backbone == LITE:
        found = Network(FORMAT, installed())
    else:
        found = Network(FORMAT, backbone(GHOST, ghost.initial_state(recipe.seed)))
    if not recipe.long_sides:
        return found, source
    smallest, largest = recipe.long_sides[0], recipe.long_sides[-1]
    size: InputSize | FixedSize = InputSize(smallest, largest)
    if isinstance(found.backbone.preprocessing.size, FixedSize):
        size = FixedSize(largest, largest)
    preprocessing = dataclasses.replace(found.backbone.preprocessing, size=size)
    own = dataclasses.replace(found.backbone, preprocessing=preprocessing)
    return dataclasses.replace(found, backbone=own), source


def _start(
    parsed: argparse.Namespace, recipe: Recipe, net: Network, source: bytes, images: Images
) -> bytes:
    """The file of the model before training: clusters and projection from the photographs."""
    clusters = parsed.clusters or (4 if parsed.aggregation == "supervlad" else 64)
    if clusters < 1 or (parsed.project is not None and parsed.project < 1):
        raise UserError("--clusters and --project must be 1 or more")
    rows = np.random.default_rng(recipe.seed).permutation(len(images))
    own: Backbone = net.backbone
    aggregation, whitening = net.aggregation, net.whitening
    if aggregation is None:
        if parsed.backbone == GHOST:
            own = calibrate(own, images.read(rows[:_CALIBRATED_ON]), parsed.device)
        sample = _chunks(images, rows[:_SAMPLED_IMAGES])
        aggregation = learnt_aggregation(
            parsed.aggregation, own, sample, clusters, recipe.seed, parsed.device
        )
    if parsed.project is not None and whitening is None:
        needed = 2 * IMAGES_PER_DIMENSION * parsed.project
        model = TrainableModel(own, aggregation, device=parsed.device)
        sample = _chunks(images, rows[:needed])
        whitening = learnt_projection(
            np.concatenate([model.describe(part) for part in sample]), parsed.project
        )
    elif parsed.project is not None and len(whitening.bias) != parsed.project:  # type: ignore[union-attr]
        raise UserError(f"--project {parsed.project}: the model has a projection of its own")
    model = TrainableModel(own, aggregation, whitening, device=parsed.device)
    return to_bytes(model.network(), source)


def _chunks(images: Images, rows: np.ndarray) -> Iterator[list[Pixels]]:
    return (images.read(part) for part in in_chunks(rows, _AT_ONCE))


def _tuned_blocks(parsed: argparse.Namespace, net: Network) -> int:
    if parsed.tuned_blocks is not None:
        return int(parsed.tuned_blocks)
    stages: list[object] = net.backbone.network.stages()  # type: ignore[operator]
    return len(stages) if net.backbone.name.startswith(GHOST) else min(3, len(stages))


def _kept_bytes(parsed: argparse.Namespace) -> int:
    if parsed.keep_gb is None:
        return 1 << 30 if parsed.device == "cpu" else 0
    if not 0 <= parsed.keep_gb < 1e6:
        raise UserError("--keep-gb must be 0 or more")
    return int(parsed.keep_gb * 2**30)


def _model_name(net: Network, parsed: argparse.Namespace) -> str:
    kind = type(net.aggregation).__name__.lower() if net.aggregation else parsed.aggregation
    return "ghost-dil-netvlad" if (kind, parsed.backbone) == ("netvlad", GHOST) else kind


def _told(parsed: argparse.Namespace) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(json.dumps(vars(parsed), default=str))
    return told


def _line(row: dict[str, float]) -> str:
    loss = f"loss {row['loss']:.4f}  " if "loss" in row else ""
    recalls = "  ".join(f"recall@{k} {100 * row[f'recall@{k}']:5.1f} %" for k in (1, 5, 10))
    return f"epoch {row['epoch']:2d}  {loss}{recalls}"


if __name__ == "__main__":
    leave(main)
