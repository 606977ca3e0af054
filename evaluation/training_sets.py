"""The training set and the validation set that the settings name."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from vladmap.evaluation.sets import read_set
from vladmap.evaluation.training_settings import TrainingData
from vladmap.models.training.loop import Watch
from vladmap.models.training.pictures import Pictures
from vladmap.models.training.steps import TrainingSet, ValidationSet
from vladmap.photos.holdout import hold_out
from vladmap.photos.layouts import EvaluationSet, detect
from vladmap.photos.places import Places, within
from vladmap.schemas.rejects import UserError
from vladmap.weights.preprocessing import Size

_LOG = logging.getLogger("vladmap")
_RIGHT_M = 25.0


def read_data(
    data: TrainingData, size: Size, seed: int, watch: Watch
) -> tuple[TrainingSet, ValidationSet]:
    """The training set and the validation set, without photographs that cannot be decoded."""
    sets = [read_set(data.set_of(source, data.layout, data.split)) for source in data.sources]
    for source, each in zip(data.sources, sets, strict=True):
        if each.metres is None:
            raise UserError(f"--data {source} has no positions to learn from; it can --validate")
    if len({each.leave_one_out for each in sets}) > 1:
        raise UserError("--data: a CSV without sides cannot be mixed with sources that have them")
    same = sets[0].leave_one_out
    database = _joined([each.database for each in sets])
    queries = database if same else _joined([each.queries for each in sets])
    judged = _validation(data)
    if judged is None:
        out = hold_out(database, queries, data.validate_share, seed)
        rows = [np.flatnonzero(part) for part in out]
        remaining = [np.flatnonzero(~part) for part in out]
        apart = database.take(rows[0]), queries.take(rows[1])
        judged = EvaluationSet("areas", *apart, within(apart[1], apart[0], _RIGHT_M), _RIGHT_M)
        if same:
            positives = [rows[rows != n] for n, rows in enumerate(judged.positives)]
            judged = EvaluationSet("areas", *apart, positives, _RIGHT_M, leave_one_out=True)
        database, queries = database.take(remaining[0]), queries.take(remaining[1])
    return (
        _training(data, database, queries, same, size, watch),
        _judging(data, judged, size, watch),
    )


def _validation(data: TrainingData) -> EvaluationSet | None:
    """The set to validate on; None if areas of the training set have to be held out for it."""
    if data.validate is not None:
        return read_set(data.set_of(data.validate, "auto", data.validate_split))
    first = data.sources[0]
    layout = detect(first) if data.layout == "auto" else data.layout
    split = first / "images" / data.validate_split
    if layout == "msls" or (layout == "utm" and split.is_dir()):
        return read_set(data.set_of(first, layout, data.validate_split))
    return None


def _training(
    data: TrainingData,
    database: Places,
    queries: Places,
    same: bool,
    size: Size,
    watch: Watch,
) -> TrainingSet:
    kept, images = _readable(data, database, size, "read the database", watch)
    asked, others = kept, images
    if not same:
        asked, others = _readable(data, queries, size, "read the queries", watch)
    return TrainingSet(
        others, images, queries.positions[asked], database.positions[kept], same=same
    )


def _judging(data: TrainingData, judged: EvaluationSet, size: Size, watch: Watch) -> ValidationSet:
    kept, images = _readable(data, judged.database, size, "read the validation set", watch)
    asked, others = kept, images
    if not judged.leave_one_out:
        asked, others = _readable(data, judged.queries, size, "read its queries", watch)
    places = np.full(len(judged.database), -1)
    places[kept] = np.arange(len(kept))
    positives = [places[judged.positives[row]] for row in asked]
    positives = [rows[rows >= 0] for rows in positives]
    return ValidationSet(others, images, positives, judged.leave_one_out)


def _readable(
    data: TrainingData,
    places: Places,
    size: Size,
    what: str,
    watch: Watch,
) -> tuple[np.ndarray, Pictures]:
    """The rows of the photographs that can be decoded, and their pictures; others are logged."""
    memory = int(data.memory_gb * 2**30 / 4)
    images = Pictures(places.paths, size, data.threads, memory)
    bad = images.unreadable(watch(what, len(places)))
    if not bad:
        return np.arange(len(places)), images
    first = min(bad)
    _LOG.warning(
        "%d of %d photographs cannot be read and are left out, first %s: %s",
        len(bad), len(places), places.paths[first], bad[first],
    )  # fmt: skip
    readable = np.setdiff1d(np.arange(len(places)), list(bad))
    if not len(readable):
        raise UserError(f"none of the {len(places)} photographs can be read")
    paths = [places.paths[row] for row in readable]
    return readable, Pictures(paths, size, data.threads, memory)


def _joined(parts: Sequence[Places]) -> Places:
    return Places(
        tuple(path for part in parts for path in part.paths),
        np.concatenate([part.positions for part in parts]),
        tuple(condition for part in parts for condition in part.conditions),
        np.concatenate([part.headings for part in parts]),
    )
