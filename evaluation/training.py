"""The training that `vladmap train` does."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vladmap.console.quiet import hidden
from vladmap.evaluation.training_sets import read_data
from vladmap.evaluation.training_settings import TrainingSettings
from vladmap.models.backbones import ghost
from vladmap.models.backbones.registry import Backbone, backbone, installed
from vladmap.models.base import Pixels
from vladmap.models.checkpoints.layouts import Network, network, to_bytes
from vladmap.models.training.files import BEST, START, STATE, write_file
from vladmap.models.training.loop import Advance, Trainer
from vladmap.models.training.pictures import Images, in_chunks
from vladmap.models.training.recipe import GHOST, LITE
from vladmap.models.training.trainable import (
    FORMAT,
    TrainableModel,
    calibrate,
    learnt_aggregation,
    learnt_projection,
    trainable,
)
from vladmap.models.whitening import IMAGES_PER_DIMENSION
from vladmap.schemas.rejects import UserError
from vladmap.weights.preprocessing import FixedSize, InputSize, Size
from vladmap.weights.reading import is_vocabulary, read_weights

_SAMPLED_IMAGES = 2000
_CALIBRATED_ON = 32
_AT_ONCE = 32


def train(settings: TrainingSettings) -> None:
    """Make the model to start from, train it, and print the result."""
    recipe = settings.recipe
    begun = (settings.output / STATE).exists()
    if begun and not settings.resume:
        raise UserError(f"{settings.output} holds a run: go on by --resume, or name another folder")
    # Without this setting cuBLAS adds up in an order that differs from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with tqdm(disable=hidden(), leave=False, unit=" images") as bar:

        def watch(what: str, total: int) -> Advance:
            bar.reset(total)
            bar.set_description(what)
            return bar.update

        net, first = _foundation(settings)
        training, validation = read_data(
            settings.data, net.backbone.preprocessing.size, recipe.seed, watch
        )
        if begun:
            first = (settings.output / START).read_bytes()
        else:
            first = _start(settings, net, first, training.database)
            write_file(settings.output / START, first)
        model = trainable(
            network(read_weights(first)),
            _tuned_blocks(settings, net),
            settings.device,
            settings.precision or ("bfloat16" if settings.device == "cuda" else "float32"),
        )
        counts = {
            "queries": len(training.queries),
            "queries with potential positives": len(training.usable),
            "database": len(training.database),
            "validation queries": len(validation.queries),
            "validation database": len(validation.database),
        }
        tqdm.write(", ".join(f"{name}: {count}" for name, count in counts.items()))
        record = {
            "options": dict(settings.options),
            "recipe": dataclasses.asdict(recipe),
            "counts": counts,
        }
        write_file(
            settings.output / "training.json",
            (json.dumps(record, indent=1, sort_keys=True) + "\n").encode(),
        )
        trainer = Trainer(
            model,
            recipe,
            training,
            validation,
            settings.output,
            first,
            watch,
            _kept_bytes(settings),
        )
        progress = trainer.run(begun, lambda row: tqdm.write(_line(row)))
    best = progress.best()
    row = progress.curve[best]
    print(
        f"best after epoch {best}: recall@1 {100 * row['recall@1']:.1f} %, at the start "
        f"{100 * progress.curve[0]['recall@1']:.1f} %"
    )
    print(
        f"evaluate it:\n  vladmap evaluate {settings.data.sources[0]} --split test "
        f"--model {_model_name(net, settings)} --checkpoint {settings.output / BEST}"
    )


def _foundation(settings: TrainingSettings) -> tuple[Network, bytes]:
    """The network that the settings name, without the parts that are learnt first, and its file."""
    source = b""
    if settings.init is not None or settings.backbone not in (LITE, GHOST):
        path = settings.init or Path(settings.backbone)
        file = read_weights(path)
        if is_vocabulary(file):
            raise UserError(f"{path} is a vocabulary: train from its backbone instead")
        foundation, source = network(file), path.read_bytes()
        if settings.init is None:
            foundation = Network(FORMAT, foundation.backbone)
        elif foundation.aggregation is None:
            raise UserError(f"--init {path} is a backbone alone: name it by --backbone")
    elif settings.backbone == LITE:
        foundation = Network(FORMAT, installed())
    else:
        foundation = Network(FORMAT, backbone(GHOST, ghost.initial_state(settings.recipe.seed)))
    if not settings.recipe.long_sides:
        return foundation, source
    smallest, largest = settings.recipe.long_sides[0], settings.recipe.long_sides[-1]
    size: Size = InputSize(smallest, largest)
    if isinstance(foundation.backbone.preprocessing.size, FixedSize):
        size = FixedSize(largest, largest)
    preprocessing = dataclasses.replace(foundation.backbone.preprocessing, size=size)
    own = dataclasses.replace(foundation.backbone, preprocessing=preprocessing)
    return dataclasses.replace(foundation, backbone=own), source


def _start(settings: TrainingSettings, net: Network, source: bytes, images: Images) -> bytes:
    """The file of the model before training, with clusters and projection from photographs."""
    clusters = settings.clusters or (4 if settings.aggregation == "supervlad" else 64)
    rows = np.random.default_rng(settings.recipe.seed).permutation(len(images))
    own: Backbone = net.backbone
    aggregation, whitening = net.aggregation, net.whitening
    if aggregation is None:
        if settings.backbone == GHOST:
            own = calibrate(own, images.read(rows[:_CALIBRATED_ON]), settings.device)
        sample = _chunks(images, rows[:_SAMPLED_IMAGES])
        aggregation = learnt_aggregation(
            settings.aggregation, own, sample, clusters, settings.recipe.seed, settings.device
        )
    if settings.project is not None and whitening is None:
        needed = 2 * IMAGES_PER_DIMENSION * settings.project
        model = TrainableModel(own, aggregation, device=settings.device)
        sample = _chunks(images, rows[:needed])
        whitening = learnt_projection(
            np.concatenate([model.describe(part) for part in sample]), settings.project
        )
    elif settings.project is not None and len(whitening.bias) != settings.project:  # type: ignore[union-attr]
        raise UserError(f"--project {settings.project}: the model has a projection of its own")
    model = TrainableModel(own, aggregation, whitening, device=settings.device)
    return to_bytes(model.network(), source)


def _chunks(images: Images, rows: np.ndarray) -> Iterator[list[Pixels]]:
    return (images.read(part) for part in in_chunks(rows, _AT_ONCE))


def _tuned_blocks(settings: TrainingSettings, net: Network) -> int:
    if settings.tuned_blocks is not None:
        return int(settings.tuned_blocks)
    stages: list[object] = net.backbone.network.stages()  # type: ignore[operator]
    return len(stages) if net.backbone.name.startswith(GHOST) else min(3, len(stages))


def _kept_bytes(settings: TrainingSettings) -> int:
    if settings.keep_gb is None:
        return 1 << 30 if settings.device == "cpu" else 0
    return int(settings.keep_gb * 2**30)


def _model_name(net: Network, settings: TrainingSettings) -> str:
    kind = type(net.aggregation).__name__.lower() if net.aggregation else settings.aggregation
    return "ghost-dil-netvlad" if (kind, settings.backbone) == ("netvlad", GHOST) else kind


def _line(row: dict[str, float]) -> str:
    loss = f"loss {row['loss']:.4f}  " if "loss" in row else ""
    recalls = "  ".join(f"recall@{k} {100 * row[f'recall@{k}']:5.1f} %" for k in (1, 5, 10))
    return f"epoch {row['epoch']:2d}  {loss}{recalls}"
