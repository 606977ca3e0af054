"""The distillation that `vladmap distil` does."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vladmap.console.quiet import hidden
from vladmap.evaluation.sets import read_set
from vladmap.evaluation.settings import SetSettings
from vladmap.evaluation.training_settings import DistillationSettings
from vladmap.models.backbones import ghost
from vladmap.models.backbones.registry import Backbone, backbone, installed
from vladmap.models.base import Pixels
from vladmap.models.checkpoints.layouts import Network, network, to_bytes
from vladmap.models.kinds import DEFAULT_DIMENSION
from vladmap.models.learning import DESCRIPTORS_AN_IMAGE, WORD_IMAGES, lowest_digests
from vladmap.models.registry import default_clusters
from vladmap.models.training.distillation import Distiller, Scenes, crops
from vladmap.models.training.files import (
    BEST,
    LAST,
    STATE,
    read_state,
    write_curve,
    write_file,
    write_state,
)
from vladmap.models.training.pictures import Pictures, in_chunks
from vladmap.models.training.recipe import GHOST
from vladmap.models.training.trainable import FORMAT, TrainableModel, calibrate, learnt_aggregation
from vladmap.models.whitening import fit_reduction, whitened
from vladmap.photos.decoding.decode import decode_rgb
from vladmap.photos.files import read_photo
from vladmap.photos.places import list_photos
from vladmap.photos.scenes import aligned_scenes
from vladmap.retrieval.recall import rank
from vladmap.schemas.rejects import PhotoError, UserError
from vladmap.weights.reading import part_of, read_weights

_AS = "netvlad-lite"  # the model by whose words and reduction the validation set is described
_VOCABULARIES = 3
_CALIBRATED_ON = 32
_MOST_LEARNT_FROM = 4096  # the most pictures that words and reduction are learnt from
_SIDE = 1600  # long side in pixels of the photographs that crops are taken from
_COLUMNS = ("step", "loss", "recall@1", "recall@5")


def distil(settings: DistillationSettings) -> None:
    """Learn, validate, and write the model with words and a reduction of its own."""
    if (settings.output / STATE).exists() and not settings.resume:
        raise UserError(f"{settings.output} holds a run: go on by --resume, or name another folder")
    # Without this setting cuBLAS adds up in an order that differs from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    recipe = settings.recipe
    teacher, source = _teacher(settings.init)
    scenes, photographs = _scenes(settings), _photographs(settings)
    student = None if settings.student is None else _student(settings, scenes, photographs)
    with tqdm(
        total=len(scenes) + len(photographs), desc="look", unit=" scenes", disable=hidden()
    ) as bar:
        distiller = Distiller(
            teacher, scenes, photographs, recipe, bar.update, student, settings.device
        )
    record = {
        "options": dict(settings.options),
        "recipe": dataclasses.asdict(recipe),
        "scenes": len(scenes),
        "photographs": len(photographs),
    }
    write_file(
        settings.output / "distillation.json",
        (json.dumps(record, indent=1, sort_keys=True) + "\n").encode(),
    )
    best = _learn(settings, distiller, record)
    both = [*_sample(scenes), *_sample(photographs)]
    for name, learnt in {BEST: best, LAST: distiller.learnt()}.items():
        net = _finished(settings, learnt, both, recipe.seed)
        write_file(settings.output / name, to_bytes(net, source, half=True))
        print(
            f"{settings.output / name}: {len(net.whitening.bias) if net.whitening else 0} numbers"
        )


def _learn(
    settings: DistillationSettings, distiller: Distiller, record: Mapping[str, Any]
) -> Backbone:
    """The student that is best on the validation set; without a set, the last one."""
    steps = distiller.settings.steps
    judge = None if settings.validate is None else _Judge(settings)
    curve: list[dict[str, float]] = []
    best = distiller.learnt()
    losses: list[float] = []

    def note(step: int, student: Backbone) -> None:
        nonlocal best
        row: dict[str, float] = {"step": step}
        if losses:
            row["loss"] = round(float(np.mean(losses)), 6)
        if judge is not None:
            row["recall@1"], row["recall@5"] = judge.recalls(student)
        curve.append(row)
        if curve[_best(curve)] is row:
            best = student
        write_curve(settings.output, curve, _COLUMNS)
        tensors_of_best = {
            f"best.{name}": tensor for name, tensor in best.network.state_dict().items()
        }
        content = {"about": record, "curve": curve}
        write_state(settings.output, step, distiller.state() | tensors_of_best, content)
        tqdm.write("  ".join(f"{name} {value:g}" for name, value in row.items()))
        sys.stdout.flush()
        losses.clear()

    if settings.resume:
        content, tensors = read_state(settings.output, record)
        curve += content["curve"]
        distiller.restore(tensors)
        best = distiller.backbone(part_of(tensors, "best."))
    else:
        note(0, best)
    done = int(curve[-1]["step"])
    with tqdm(total=steps, initial=done, desc="distil", unit=" steps", disable=hidden()) as bar:
        for step in range(done, steps):
            losses.append(distiller.step(step))
            bar.update()
            if (step + 1) % settings.check == 0 or step + 1 == steps:
                note(step + 1, distiller.learnt())
    return best


def _best(curve: Sequence[Mapping[str, float]]) -> int:
    """The row of the highest recall@5; of several, the one of the highest recall@1, then the first.
    If nothing was validated it is the last row.
    """
    if "recall@5" not in curve[-1]:
        return len(curve) - 1
    return max(range(len(curve)), key=lambda n: (curve[n]["recall@5"], curve[n]["recall@1"], -n))


class _Judge:
    """Measures recall on photographs of places.

    Descriptors are made as in a build, with words and reduction learnt from the database. Recall is
    the mean over several vocabularies, which differ by a point or two.
    """

    def __init__(self, settings: DistillationSettings) -> None:
        assert settings.validate is not None
        self._set = read_set(
            SetSettings(settings.validate, split="val", frames_tolerance=settings.frames_tolerance)
        )
        self._seed: int = settings.recipe.seed
        self._device = settings.device

    def recalls(self, student: Backbone) -> tuple[float, float]:
        """Recall@1 and recall@5 in %, over the queries that have a positive."""
        size = student.preprocessing.size
        sides = [
            Pictures(self._set.database.paths, size),
            Pictures(self._set.queries.paths, size),
        ]
        asked = np.array([len(rows) > 0 for rows in self._set.positives])
        drawn = lowest_digests([path.name for path in self._set.database.paths], WORD_IMAGES)
        first_ranks = []
        for seed in range(self._seed, self._seed + _VOCABULARIES):
            parts = (sides[0].read(part) for part in in_chunks(np.array(drawn), 32))
            aggregation = learnt_aggregation(
                "netvlad",
                student,
                parts,
                default_clusters(_AS),
                seed,
                self._device,
                DESCRIPTORS_AN_IMAGE,
            )
            model = TrainableModel(student, aggregation, device=self._device)
            database, queries = (
                np.concatenate([model.describe(side.read(part)) for part in _chunks(side)])
                for side in sides
            )
            reduction = fit_reduction(database, DEFAULT_DIMENSION[_AS])
            if reduction is not None:
                database, queries = (whitened(rows, reduction) for rows in (database, queries))
            first_ranks.append(rank(queries, database, self._set.positives).first()[asked])
        one, five = (round(100 * float((np.stack(first_ranks) < k).mean()), 2) for k in (1, 5))
        return one, five


def _chunks(pictures: Pictures) -> list[NDArray[np.int64]]:
    return in_chunks(np.arange(len(pictures)), 32)


def _teacher(path: Path | None) -> tuple[Backbone, bytes]:
    if path is None:
        return installed(), b""
    return network(read_weights(path)).backbone, path.read_bytes()


def _student(settings: DistillationSettings, scenes: Scenes, photographs: Scenes) -> Backbone:
    assert settings.student is not None
    if settings.student != GHOST:
        return network(read_weights(Path(settings.student))).backbone
    pictures = [*_sample(scenes), *_sample(photographs)]
    first = backbone(GHOST, ghost.initial_state(settings.recipe.seed))
    every = max(1, len(pictures) // _CALIBRATED_ON)
    return calibrate(first, pictures[::every], settings.device)


def _scenes(settings: DistillationSettings) -> Scenes:
    size = settings.size
    if settings.worlds is None:
        return _none(size)
    aligned = aligned_scenes(settings.worlds, settings.clear)
    paths = [path for scene in aligned for path in scene.paths]
    pictures = [_read(path, size) for path in tqdm(paths, desc="read worlds", disable=hidden())]
    views, clear, start = [], [], 0
    for scene in aligned:
        views.append(np.arange(start, start + len(scene.paths)))
        clear.append(start + np.array(scene.clear))
        start += len(scene.paths)
    return Scenes(np.stack(pictures), views, clear)


def _photographs(settings: DistillationSettings) -> Scenes:
    paths = [path for folder in settings.photographs for path in list_photos(folder)]
    read: list[Pixels] = []
    bad: dict[Path, str] = {}
    for path in tqdm(paths, desc="read photographs", disable=hidden()):
        try:
            read.append(decode_rgb(read_photo(path), target=_reduced))
        except (PhotoError, OSError) as error:
            bad[path] = str(error)
    for path, reason in bad.items():
        tqdm.write(f"{path} is left out: {reason}")
    if paths and not read:
        raise UserError(f"none of the {len(paths)} photographs can be read")
    return crops(read, settings.crops, settings.size, settings.recipe.seed)


def _reduced(width: int, height: int) -> tuple[int, int]:
    share = min(1.0, _SIDE / max(width, height))
    return max(1, round(width * share)), max(1, round(height * share))


def _read(path: Path, size: tuple[int, int]) -> Pixels:
    try:
        return decode_rgb(read_photo(path), target=lambda width, height: size)
    except (PhotoError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _none(size: tuple[int, int]) -> Scenes:
    return Scenes(np.empty((0, size[1], size[0], 3), np.uint8), [], [])


def _sample(scenes: Scenes) -> Iterator[Pixels]:
    """Pictures to learn words and a reduction from, evenly spaced over all."""
    count = min(len(scenes.pictures), _MOST_LEARNT_FROM // 2)
    rows = np.linspace(0, len(scenes.pictures) - 1, count).round().astype(int)
    return (scenes.pictures[row] for row in np.unique(rows))


def _finished(
    settings: DistillationSettings, learnt: Backbone, pictures: Sequence[Pixels], seed: int
) -> Network:
    """The complete model; words and reduction are learnt from the pictures given."""
    parts = [pictures[start : start + 32] for start in range(0, len(pictures), 32)]
    aggregation = learnt_aggregation(
        "netvlad", learnt, parts, settings.clusters, seed, settings.device
    )
    model = TrainableModel(learnt, aggregation, device=settings.device)
    descriptors = [model.describe(part) for part in tqdm(parts, desc="reduce", disable=hidden())]
    reduction = fit_reduction(np.concatenate(descriptors), settings.project)
    return Network(FORMAT, learnt, model.network().aggregation, reduction)
