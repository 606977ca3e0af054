"""One step of training: the images of some tuples, their descriptors, the loss."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from vladmap.models.base import Pixels
from vladmap.models.training.augment import augment
from vladmap.models.training.frozen import Describer
from vladmap.models.training.losses import multi_similarity, triplet_ranking
from vladmap.models.training.mining import NEGATIVES_M, POSITIVES_M, Rows, Tuples
from vladmap.models.training.pictures import Images
from vladmap.models.training.recipe import Recipe
from vladmap.weights.preprocessing import Size

SIDES = ("query", "database")
AS_IT_IS = -1
"""In place of the number of a variant: the picture without augmentation."""

Key = tuple[str, int, int, Size]
Sizes = Sequence[Size]


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Queries and database with their GPS positions, (Q, 3) and (N, 3) in metres.

    Images within POSITIVES_M of a query may show the same scene, images beyond NEGATIVES_M cannot.
    With `same`, both sides are the same images, and none is its own positive.
    """

    queries: Images
    database: Images
    query_positions: NDArray[np.float64]
    database_positions: NDArray[np.float64]
    same: bool = False

    @cached_property
    def potential(self) -> list[Rows]:
        """The database rows that may show what each query shows, ascending."""
        within_reach = self._within(POSITIVES_M)
        return (
            [rows[rows != n] for n, rows in enumerate(within_reach)] if self.same else within_reach
        )

    @cached_property
    def near(self) -> list[Rows]:
        """The database rows too near to each query to be negatives, ascending."""
        return self._within(NEGATIVES_M)

    @cached_property
    def usable(self) -> Rows:
        """The queries with a potential positive: the others have nothing to learn from."""
        return np.flatnonzero([len(rows) > 0 for rows in self.potential])

    def digest(self) -> str:
        """A digest of the positions, by which training sets are distinguished."""
        blake = hashlib.blake2b(digest_size=8)
        for positions in (self.query_positions, self.database_positions):
            blake.update(np.ascontiguousarray(positions).data)
        return blake.hexdigest()

    def _within(self, metres: float) -> list[Rows]:
        tree = cKDTree(self.database_positions)
        neighbours = tree.query_ball_point(self.query_positions, metres, return_sorted=True)
        return [np.array(rows, np.int64) for rows in neighbours]


@dataclass(frozen=True, eq=False)
class ValidationSet:
    """What recall is measured on: `positives` lists the right rows of each query."""

    queries: Images
    database: Images
    positives: Sequence[Rows]
    same: bool = False


@dataclass(frozen=True, eq=False)
class Batch:
    """The images of T tuples: T queries, then the rows `database` (U,), ascending.

    `keys` (T + U) are those of `Describer`, `pixels` the images that it does not know, `seeds`
    those of their augmentation.
    """

    tuples: Tuples
    database: Rows
    size: Size
    keys: list[Key | None]
    pixels: dict[int, Pixels]
    seeds: list[tuple[int, ...]]


class Steps:
    """The loss of a model on tuples of a training set."""

    def __init__(
        self, describer: Describer, sizes: Sizes, recipe: Recipe, data: TrainingSet
    ) -> None:
        """`sizes` are those of which one is drawn for each pass."""
        self._describer, self._sizes = describer, sizes
        self._recipe, self._data = recipe, data

    def read(self, tuples: Tuples, epoch: int) -> Batch:
        """Read the images of some tuples, each once, and draw their size and augmentation."""
        recipe = self._recipe
        rows = np.unique(np.concatenate([tuples.positives, tuples.negatives], axis=None))
        database = rows[rows >= 0]
        rng = np.random.default_rng([recipe.seed, epoch, int(tuples.queries[0])])
        size = self._sizes[int(rng.integers(len(self._sizes)))]
        variant = epoch % recipe.variants if recipe.variants else epoch
        sides = [("query", int(row)) for row in tuples.queries]
        sides += [("database", int(row)) for row in database]
        seeds: list[tuple[int, ...]] = [
            (recipe.seed, variant, SIDES.index(side), row) for side, row in sides
        ]
        keys = [self._key(side, row, variant, size) for side, row in sides]
        unknown = np.array(self._describer.unknown(keys), np.int64)
        missing_queries, missing_database = (
            unknown[unknown < len(tuples)],
            unknown[unknown >= len(tuples)],
        )
        images = self._data.queries.read(tuples.queries[missing_queries])
        images += self._data.database.read(database[missing_database - len(tuples)])
        return Batch(
            tuples, database, size, keys, dict(zip(unknown.tolist(), images, strict=True)), seeds
        )

    def _key(self, side: str, row: int, variant: int, size: Size) -> Key | None:
        """The cache key of an image; None where its augmentation is never repeated."""
        if self._recipe.augmentation == 0:
            return side, row, AS_IT_IS, size
        return (side, row, variant, size) if self._recipe.variants else None

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar with its graph."""
        descriptors = self._describe(batch)
        tuples, database = batch.tuples, batch.database
        count, device = len(tuples), descriptors.device
        rows = np.concatenate([tuples.positives, tuples.negatives], axis=1)
        places = count + np.where(rows < 0, 0, np.searchsorted(database, rows))
        if self._recipe.loss == "triplet":
            split = tuples.positives.shape[1]
            others = descriptors[torch.from_numpy(places).to(device)]
            there = torch.from_numpy(rows >= 0).to(device)
            positives, negatives = others[:, :split], others[:, split:]
            margin = self._recipe.margin
            return triplet_ranking(descriptors[:count], positives, negatives, there, margin)
        alike, unlike = (torch.from_numpy(pairs).to(device) for pairs in self._pairs(batch))
        return multi_similarity(descriptors, alike, unlike)

    def _describe(self, batch: Batch) -> Tensor:
        """(T + U, D) descriptors of the batch's images, augmented."""

        def augmented(images: Tensor, positions: list[int]) -> Tensor:
            seeds = [batch.seeds[position] for position in positions]
            return augment(images, seeds, self._recipe.augmentation)

        return self._describer.describe(batch.keys, batch.pixels, batch.size, augmented)

    def _pairs(self, batch: Batch) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(B, B): which images show one place, as their tuple says, and which cannot, by GPS."""
        tuples, count = batch.tuples, len(batch.tuples)
        members = np.zeros((count, count + len(batch.database)), np.int64)
        members[:, :count] = np.eye(count)
        places = count + np.searchsorted(batch.database, np.maximum(tuples.positives, 0))
        row, column = np.nonzero(tuples.positives >= 0)
        members[row, places[row, column]] = 1
        alike = members.T @ members > 0
        np.fill_diagonal(alike, False)
        positions = np.concatenate(
            [
                self._data.query_positions[tuples.queries],
                self._data.database_positions[batch.database],
            ]
        )
        apart = np.linalg.norm(positions[:, None] - positions, axis=2)
        return alike, ~alike & (apart > NEGATIVES_M)
