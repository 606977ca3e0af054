"""How a descriptor model learns: every number that a training run depends on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from models.base import FixedSize, InputSize
from models.losses import MARGIN
from models.mining import HARDEST, SAMPLED
from schemas.rejects import UserError

LOSSES = ("triplet", "multi-similarity")
OPTIMISERS = ("sgd", "adamw")
SCHEDULES = ("step", "cosine")

_HALVE_EVERY = 5  # epochs


@dataclass(frozen=True)
class Recipe:
    """How a model learns; the defaults are NetVLAD's, as published.

    A step takes `tuples` queries, each with its `positives` best potential positives, its `hardest`
    negatives of `sampled` and as many of its round before, in `accumulate` passes. The cache is
    filled anew every `refresh` queries, with at most `cached` images of the database beside those
    that its queries need. `rate` is that of the backbone, the aggregation and the projection learn
    at `head_rate` times it. `augmentation` is the strength of `models.augment`; with `variants` it
    begins again with the first after so many epochs, so that what frozen stages make of an image
    can be kept. Images are brought to one of `long_sides`, in pixels and drawn anew each pass, or
    without any to the model's own size. Training ends after `patience` epochs without a higher
    recall@5.
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

    def sizes(self, own: InputSize | FixedSize) -> list[InputSize | FixedSize]:
        """Those of which one is drawn each pass; `own` is the model's."""
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
"""Where to begin from with each loss."""
