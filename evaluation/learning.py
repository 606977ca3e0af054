"""The model that an evaluation measures; words that it lacks are learnt from the database."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vladmap.evaluation.describing import Pixels, RunSettings, Target, read_ahead
from vladmap.models import DescriptorModel, load_model
from vladmap.models.checkpoints.vocabulary import to_bytes
from vladmap.models.kinds import DEFAULT_DIMENSION, LEARN_NOTHING, SHIPPED
from vladmap.models.learning import (
    PART_IMAGES,
    LearningSettings,
    Part,
    complete_weights,
    learn,
    lowest_digests,
)
from vladmap.models.memory import one_thread_a_call
from vladmap.models.registry import local_descriptors, patch_dimension
from vladmap.schemas.rejects import UserError

WORD_IMAGES = 512
"""Photographs that an evaluation learns words from, by default.

Twice as many as in a build, because one vocabulary serves a whole measurement; the figures of
docs/evaluation.md were made with it. Recall hardly differs: on 303 places in another season
recall@1 is 80.9 % with these and 80.5 % with a build's, one query less.
"""

DESCRIPTORS_AN_IMAGE = 200


@dataclass(frozen=True)
class ModelChoice:
    """Which model is measured, how it runs, and whether words that its file has are learnt anew.

    `dimension` is what descriptors are reduced to where words are learnt: None for as many numbers
    as suit the model, 0 for no reduction. `whiten` says that the caller whitens descriptors
    afterwards: they are not reduced then. `patch_size` in cells and `patch_dimension` are of the
    patches it re-ranks by; 0 for none.
    """

    name: str
    checkpoint: Path | None = None
    learn: bool = False
    run: RunSettings = field(default_factory=RunSettings)
    seed: int = 0
    patch_size: int = 0
    patch_dimension: int = 0
    dimension: int | None = None
    whiten: bool = False

    @property
    def reduced_to(self) -> int:
        """Numbers that descriptors are reduced to where words are learnt, 0 for no reduction."""
        if self.whiten:
            return 0
        return DEFAULT_DIMENSION[self.name] if self.dimension is None else self.dimension


def prepare_model(choice: ModelChoice, database: Sequence[Path]) -> tuple[DescriptorModel, int]:
    """The model, and the number of photographs of the database that its words were learnt from.

    The number is 0 for a complete checkpoint and for weights that ship with vladmap. Otherwise
    centres, word weights, the reduction and the whitening of patches are learnt from the database
    by the steps of a build (`models.learning`). Raises UserError where the model
    needs a file that is not given.
    """
    run = choice.run
    if run.device == "cpu":
        one_thread_a_call()
    name, checkpoint = choice.name, _read(choice.checkpoint)
    if choice.learn and name in LEARN_NOTHING:
        raise UserError(f"--learn: there is nothing to learn for {name}")
    complete = complete_weights(name, checkpoint, choice.learn)
    if complete is not None:
        if choice.patch_size:
            patch_dimension(name, complete)
        return load_model(name, complete, run.device, run.precision), 0
    if checkpoint is None and name not in SHIPPED:
        local_descriptors(name)  # raises the UserError that says what the model needs
    settings = LearningSettings(
        model=name,
        checkpoint=checkpoint,
        seed=choice.seed,
        device=run.device,
        precision=run.precision,
        dimension=choice.reduced_to,
        patch_size=choice.patch_size,
        patch_dimension=choice.patch_dimension,
        word_images=WORD_IMAGES,
        descriptors_an_image=DESCRIPTORS_AN_IMAGE,
    )
    sample = sample_of(database, settings.sample_images)
    vocabulary = learn(settings, SampleReader(sample, run.threads), len(sample))
    model = load_model(name, to_bytes(vocabulary), run.device, run.precision)
    return model, min(settings.word_images, len(sample))


def sample_of(database: Sequence[Path], count: int) -> list[Path]:
    """At most `count` photographs: those whose relative paths have the lowest digests.

    Paths are relative to the common folder: for a collection in that folder these are the
    photographs that a build samples.
    """
    root = os.path.commonpath([path.parent for path in database]) if database else ""
    names = [path.relative_to(root).as_posix() for path in database]
    return [database[row] for row in lowest_digests(names, count)]


class SampleReader:
    """Photographs of a sample in parts, as `models.learning.learn` asks for them."""

    def __init__(self, sample: Sequence[Path], threads: int) -> None:
        self._sample, self._threads = sample, threads

    def __call__(self, count: int, target: Target, what: str) -> Iterator[Part]:
        photos = read_ahead(self._sample[:count], target, self._threads, what)
        start = 0
        images: list[Pixels] = []
        for place, pixels in enumerate(photos):
            if place >= start + PART_IMAGES:
                if images:
                    yield start, images
                start, images = start + PART_IMAGES, []
            if pixels is not None:
                images.append(pixels)
        if images:
            yield start, images


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"checkpoint {path}: {error.strerror}") from error
