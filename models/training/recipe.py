"""The hyperparameters of a training run and of a distillation.

The command line shows them, so this module imports nothing that is slow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vladmap.schemas.rejects import UserError

if TYPE_CHECKING:
    from vladmap.weights.preprocessing import Size

LITE, GHOST = "efficientnet-lite0", "ghost"
"""Backbones that a run can start from without a file: trained on ImageNet, and untrained."""

LOSSES = ("triplet", "multi-similarity")
OPTIMISERS = ("sgd", "adamw")
SCHEDULES = ("step", "cosine")

MARGIN = 0.1
SAMPLED = 1000
HARDEST = 10

_HALVE_EVERY = 5  # epochs
_WARM_UP = 20  # steps of a distillation


@dataclass(frozen=True)
class Recipe:
    """How a model learns; the defaults are NetVLAD's, as published.

    A step has `tuples` queries, each with its `positives` best potential positives, its `hardest`
    of `sampled` negatives and as many remembered from its previous round, in `accumulate` passes.
    The cache is recomputed every `refresh` queries, with at most `cached` images of the database in
    addition to those that its queries need. `rate` is the learning rate of the backbone; that of
    the aggregation and the projection is `head_rate` times as high. `augmentation` is the strength
    of `models.training.augment`; the augmentation repeats after `variants` epochs (0: never), so
    that outputs of frozen stages can be cached. Images are resized to one of `long_sides`, in
    pixels, drawn for each pass, or to the model's own size where there are none. Training ends
    after `patience` epochs without a higher recall@5.
    """

    loss: str = "triplet"
    epochs: int = 30
    queries_an_epoch: int = 0  # 0: all
    tuples: int = 4
    accumulate: int = 1
    positives: int = 1
    hardest: int = HARDEST
    sampled: int = SAMPLED
    refresh: int = 1000
    cached: int = 10_000
    margin: float = MARGIN
    optimiser: str = "sgd"
    rate: float = 1e-4
    head_rate: float = 1.0
    weight_decay: float = 1e-3
    schedule: str = "step"
    clip: float = 1.0
    augmentation: float = 0.0
    variants: int = 0
    long_sides: tuple[int, ...] = ()
    patience: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("loss", self.loss, LOSSES),
            ("optimiser", self.optimiser, OPTIMISERS),
            ("schedule", self.schedule, SCHEDULES),
        ):
            if value not in known:
                raise UserError(f"unknown {name} {value!r}: choose one of {', '.join(known)}")
        for name in ("tuples", "accumulate", "positives", "hardest", "sampled", "refresh"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, it must be 1 or more")
        if self.accumulate > self.tuples:
            raise UserError("a step has fewer tuples than passes to accumulate")
        if not (math.isfinite(self.rate) and self.rate > 0 and 0 <= self.augmentation <= 2):
            raise UserError("the rate must be above 0 and the augmentation from 0 to 2")

    def sizes(self, own: Size) -> list[Size]:
        """The input sizes from which one is drawn for each pass; `own` is the model's."""
        from vladmap.weights.preprocessing import FixedSize, InputSize

        if isinstance(own, FixedSize):
            return [FixedSize(side, side) for side in self.long_sides] or [own]
        return [InputSize(side, side) for side in self.long_sides] or [own]

    def rate_at(self, epoch: int, share: float) -> float:
        """The backbone's rate when `share` of `epoch` is done."""
        if self.schedule == "step":
            return self.rate * 0.5 ** (epoch // _HALVE_EVERY)
        return self.rate * 0.5 * (1 + math.cos(math.pi * (epoch + share) / self.epochs))


RECIPES = {
    "triplet": Recipe(),
    "multi-similarity": Recipe(
        loss="multi-similarity",
        tuples=16,
        positives=3,
        hardest=2,
        optimiser="adamw",
        rate=5e-4,
        schedule="cosine",
        augmentation=1.0,
    ),
}
"""The default recipe for each loss."""


@dataclass(frozen=True)
class Distillation:
    """The hyperparameters of a distillation.

    A step shows one view of each of `scenes` rendered scenes and `photographs` photographs. The
    probability of a view is proportional to its distance from the clear views (1 minus the mean
    cosine of the teacher's local descriptors) to the power `hardness`; 0: all views alike.
    Photographs are augmented by `models.training.augment` with the strength `augmentation`,
    rendered scenes, which have weather of their own, with half of it; a share `moved` of both is
    warped to another viewpoint. `temperature` is that of the softmax over cosines. `rate` is the
    peak learning rate of AdamW, reached after a few steps; it then falls to 0 by a cosine schedule.
    The resulting weights are interpolated between the teacher's (0) and the student's (1) at
    `blend`, which keeps most of what was learnt and loses less of what the teacher knew (Wortsman
    et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
    """

    steps: int = 400
    scenes: int = 8
    photographs: int = 8
    hardness: float = 2.0
    temperature: float = 0.07
    augmentation: float = 1.0
    moved: float = 0.9
    rate: float = 5e-4
    weight_decay: float = 1e-4
    clip: float = 1.0
    blend: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.scenes + self.photographs) < 1:
            raise UserError("a run needs a step and a step a scene, at least")
        if min(self.scenes, self.photographs, self.hardness) < 0:
            raise UserError("numbers of scenes and the hardness must not be negative")
        if not 0 <= self.augmentation <= 2:
            raise UserError("an augmentation lies in 0 to 2")
        if not (0 <= self.moved <= 1 and 0 <= self.blend <= 1) or not (
            self.rate > 0 and self.temperature > 0
        ):
            raise UserError("a share lies in 0 to 1; the rate and the temperature are above 0")

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        warm = min(1.0, (step + 1) / _WARM_UP)
        return self.rate * warm * (1 + math.cos(math.pi * step / self.steps)) / 2
