"""Training of a descriptor model from photographs with GPS positions as the only labels.

The procedure is that of Arandjelovic et al., "NetVLAD: CNN architecture for weakly supervised place
recognition" (CVPR 2016): hard negatives are mined from a cache of descriptors that is recomputed
from time to time, a ranking loss is minimised, and the model with the best recall on the validation
set is the result.

All random draws derive from the seed, the epoch and the image, so that a resumed run gives the same
numbers as an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vladmap.models.base import Floats, Pixels
from vladmap.models.training.files import (
    BEST,
    LAST,
    Board,
    Progress,
    load_state,
    save_state,
    write_curve,
    write_file,
)
from vladmap.models.training.frozen import Describer
from vladmap.models.training.mining import Cache, Rows, Tuples, draw_negatives, mine
from vladmap.models.training.pictures import Images, ahead, in_chunks
from vladmap.models.training.recipe import Recipe
from vladmap.models.training.steps import AS_IT_IS, Key, Steps, TrainingSet, ValidationSet
from vladmap.models.training.trainable import TrainableModel
from vladmap.retrieval.recall import rank
from vladmap.schemas.rejects import UserError
from vladmap.weights.devices import convolutions

_MOMENTUM = 0.9
_READ_AT_ONCE = 32

Advance = Callable[[int], object]
Watch = Callable[[str, int], Advance]
"""Called with the name of a phase and its number of steps when it begins. The function that it
returns is called with the number of steps done since its last call."""


def _unwatched(what: str, total: int) -> Advance:
    return lambda steps: None


class Trainer:
    """A run of `recipe` on `model`, written to `folder` epoch by epoch."""

    def __init__(
        self,
        model: TrainableModel,
        recipe: Recipe,
        training: TrainingSet,
        validation: ValidationSet,
        folder: Path,
        source: bytes = b"",
        watch: Watch = _unwatched,
        memory: int = 0,
    ) -> None:
        """`source` are the bytes of the file that `model` was made from, for the model cards.

        At most `memory` bytes of the outputs of the model's frozen stages are cached.

        Raises UserError where no query has a potential positive, or no query of the validation set
        has a positive.
        """
        if len(training.usable) == 0:
            raise UserError(
                "no query has a photograph of the database within reach to learn from: queries and "
                "database must cover the same places"
            )
        if not any(len(rows) for rows in validation.positives):
            raise UserError("no query of the validation set has a photograph of its place to find")
        self.model, self.recipe, self.folder = model, recipe, folder
        self._training, self._validation = training, validation
        self._source, self._watch = source, watch
        self._describer = Describer(model, memory)
        self._steps = Steps(self._describer, recipe.sizes(model.size), recipe, training)
        groups = [
            {"params": parameters, "factor": factor}
            for parameters, factor in (
                (model.tuned_parameters(), 1.0),
                (model.head_parameters(), recipe.head_rate),
            )
            if parameters
        ]
        self._parameters = [*model.tuned_parameters(), *model.head_parameters()]
        self._optimiser: torch.optim.Optimizer
        if recipe.optimiser == "sgd":
            self._optimiser = torch.optim.SGD(
                groups, recipe.rate, momentum=_MOMENTUM, weight_decay=recipe.weight_decay
            )
        else:
            self._optimiser = torch.optim.AdamW(
                groups, recipe.rate, weight_decay=recipe.weight_decay
            )
        self._scaler = torch.amp.GradScaler(
            model.device.type, enabled=model.precision == torch.float16
        )
        self._board = Board(folder)

    def about(self) -> dict[str, Any]:
        """The settings and data that must be equal for a run to be resumed."""
        return dataclasses.asdict(self.recipe) | {
            "data": self._training.digest(),
            "start": hashlib.sha256(self._source).hexdigest(),
            "tuned": sum(p.numel() for p in self.model.tuned_parameters()),
            "precision": str(self.model.precision),
            "kept": self._describer.keeps,
        }

    def run(
        self, resume: bool = False, on_row: Callable[[dict[str, float]], object] = lambda _: None
    ) -> Progress:
        """Train to the end, from the start or, with `resume`, from the last finished epoch.

        `on_row` is called with each row of the curve after its validation; the first row is that of
        the model before training.

        Raises UserError where the loss becomes NaN or infinite, or a run cannot be resumed.
        """
        if resume:
            progress = load_state(
                self.folder, self.model, self._optimiser, self._scaler, self.about()
            )
        else:
            nothing = np.full((len(self._training.queries), self.recipe.hardest), -1)
            progress = Progress(0, nothing)
            self._finish(progress, {}, on_row)
        while progress.epoch < self.recipe.epochs and not self._exhausted(progress):
            rate = self.recipe.rate_at(progress.epoch, 0.0)
            loss = self._epoch(progress)
            progress.epoch += 1
            self._finish(progress, {"loss": loss, "rate": rate}, on_row)
        self._board.close()
        return progress

    def recalls(self) -> dict[str, float]:
        """Recall@1, 5 and 10 on the validation set, over the queries with a positive."""
        queries, database = self._validation.queries, self._validation.database
        ranks = rank(
            self._descriptors(
                "validation query", queries, np.arange(len(queries)), "validate: queries"
            ),
            self._descriptors(
                "validation database", database, np.arange(len(database)), "validate: database"
            ),
            self._validation.positives,
            leave_one_out=self._validation.same,
        ).first()
        has_positives = np.array([len(rows) > 0 for rows in self._validation.positives])
        return {
            f"recall@{k}": round(float((ranks[has_positives] < k).mean()), 6) for k in (1, 5, 10)
        }

    def _exhausted(self, progress: Progress) -> bool:
        return progress.epoch - progress.best() >= self.recipe.patience

    def _finish(
        self,
        progress: Progress,
        figures: dict[str, float],
        on_row: Callable[[dict[str, float]], object],
    ) -> None:
        """Measure, log and save the model as it is after an epoch."""
        row = {"epoch": progress.epoch, **figures, **self.recalls()}
        progress.curve.append(row)
        data = self.model.to_bytes(self._source)
        write_file(self.folder / LAST, data)
        if progress.best() == progress.epoch:
            write_file(self.folder / BEST, data)
        write_curve(self.folder, progress.curve)
        save_state(self.folder, progress, self.model, self._optimiser, self._scaler, self.about())
        self._board.add({name: x for name, x in row.items() if name != "epoch"}, progress.epoch)
        on_row(row)

    def _epoch(self, progress: Progress) -> float:
        """Train on every query once; returns the mean loss of a tuple."""
        recipe, epoch = self.recipe, progress.epoch
        order = np.random.default_rng([recipe.seed, epoch]).permutation(self._training.usable)
        order = order[: recipe.queries_an_epoch or None]
        total, done = 0.0, 0
        for start in range(0, len(order), recipe.refresh):
            tuples = self._mined(progress, order[start : start + recipe.refresh], start)
            advance = self._watch(f"epoch {epoch + 1}: learn", len(tuples))
            self.model.train()
            passes = [*_passes(tuples, recipe)]
            read = ahead(passes, lambda item: self._steps.read(item[0], epoch))
            for (part, share, last), batch in zip(passes, read, strict=True):
                with convolutions():
                    loss = self._steps.loss(batch)
                    self._scaler.scale(loss * share).backward()
                value = loss.item()
                if not np.isfinite(value):
                    raise UserError(
                        f"the loss is no number any more in epoch {epoch + 1}: lower the rate"
                    )
                total += value * len(part)
                done += len(part)
                if last:
                    self._move(recipe.rate_at(epoch, done / len(order)))
                    place = epoch * len(order) + done
                    self._board.add({"loss of a step": value}, place)
                advance(len(part))
        return round(total / done, 6)

    def _move(self, rate: float) -> None:
        """A step of the optimiser with the accumulated gradients."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self._scaler.unscale_(self._optimiser)
        if self.recipe.clip > 0:
            torch.nn.utils.clip_grad_norm_(self._parameters, self.recipe.clip)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._optimiser.zero_grad(set_to_none=True)

    def _mined(self, progress: Progress, queries: Rows, place: int) -> Tuples:
        """The tuples of some queries, mined by descriptors of the present model."""
        recipe, data = self.recipe, self._training
        seed = [recipe.seed, progress.epoch, place]
        count = len(data.database)
        among = np.random.default_rng(seed).permutation(count)[: recipe.cached]
        potential = [data.potential[row] for row in queries]
        remembered = progress.remembered[queries]
        cached = np.unique(np.concatenate([among, *potential, remembered[remembered >= 0]]))
        among = np.sort(among)
        sampled = [
            draw_negatives(count, data.near[row], recipe.sampled, [*seed, int(row)], among)
            for row in queries
        ]
        what = f"epoch {progress.epoch + 1}: cache"
        cache = Cache(
            queries,
            self._descriptors("query", data.queries, queries, what),
            cached,
            self._descriptors("database", data.database, cached, what),
        )
        tuples, progress.remembered[queries] = mine(
            cache, potential, sampled, remembered, recipe.positives, recipe.hardest
        )
        return tuples

    @torch.no_grad()
    def _descriptors(self, side: str, images: Images, rows: Rows, what: str) -> Floats:
        """(n, D) descriptors of some rows without augmentation; a thread reads images ahead."""
        advance = self._watch(what, len(rows))
        size = self.model.size
        parts = [np.empty((0, self.model.dimension), np.float32)]

        def read(chunk: Rows) -> tuple[list[Key], dict[int, Pixels]]:
            keys = [(side, int(row), AS_IT_IS, size) for row in chunk]
            unknown = np.array(self._describer.unknown(keys), np.int64)
            return keys, dict(zip(unknown.tolist(), images.read(chunk[unknown]), strict=True))

        self.model.eval()
        for keys, pixels in ahead(in_chunks(rows, _READ_AT_ONCE), read):
            with convolutions():
                parts.append(self._describer.describe(keys, pixels, size).cpu().numpy())
            advance(len(keys))
        return np.concatenate(parts)


def _passes(tuples: Tuples, recipe: Recipe) -> Iterator[tuple[Tuples, float, bool]]:
    """(tuples of one forward pass, their share of the step, whether they are the step's last)."""
    size = -(-recipe.tuples // recipe.accumulate)
    for start in range(0, len(tuples), recipe.tuples):
        end = min(start + recipe.tuples, len(tuples))
        for first in range(start, end, size):
            part = tuples.take(slice(first, min(first + size, end)))
            yield part, len(part) / (end - start), first + size >= end
