"""Made-up places, each seen twice: the second time in other colours, from aside, by night."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vladmap.models.training.steps import TrainingSet, ValidationSet

Pixels = NDArray[np.uint8]
Rows = NDArray[np.int64]


class Loaded:
    """Images that are in memory already."""

    def __init__(self, images: Sequence[Pixels]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def read(self, rows: Rows) -> list[Pixels]:
        return [self._images[row] for row in rows]


def scene(place: int, width: int = 64, height: int = 48) -> Pixels:
    """Striped rectangles and discs of one place: (H, W, 3)."""
    generator = np.random.default_rng([7, place])
    ys, xs = np.mgrid[:height, :width]
    picture = np.full((height, width, 3), generator.integers(0, 256, 3), np.float64)
    for _ in range(12):
        x, y = generator.uniform(0, width), generator.uniform(0, height)
        w, h = generator.uniform(4, 20, 2)
        inside = (abs(xs - x) < w) & (abs(ys - y) < h)
        if generator.random() < 0.5:
            inside = (xs - x) ** 2 + (ys - y) ** 2 < (w * h) / 2
        stripes = 0.6 + 0.4 * np.sign(np.sin(generator.uniform(0.3, 1.5) * (xs + ys * w / h)))
        picture[inside] = (generator.integers(0, 256, 3) * stripes[..., None])[inside]
    return picture.clip(0, 255).astype(np.uint8)


def changed(picture: Pixels, seed: int) -> Pixels:
    """The same place moved, inverted, drawn to grey, tinted and noisy."""
    generator = np.random.default_rng([11, seed])
    moved = np.roll(picture, generator.integers(-6, 7, 2), axis=(0, 1)).astype(np.float64)
    inverted = 255 - 0.5 * moved - 0.5 * moved.mean(axis=2, keepdims=True)
    noise = generator.normal(0, 30, picture.shape)
    return (inverted * generator.uniform(0.2, 0.7, 3) + noise).clip(0, 255).astype(np.uint8)


def seen_twice(first: int, count: int) -> tuple[list[Pixels], list[Pixels]]:
    """(as the database has them, as the queries have them), place by place."""
    database = [scene(place) for place in range(first, first + count)]
    return database, [changed(picture, first + n) for n, picture in enumerate(database)]


def along_a_road(count: int, apart: float = 50.0) -> NDArray[np.float64]:
    """(N, 3) metres, `apart` from each to the next."""
    return np.arange(count)[:, None] * np.array([apart, 0.0, 0.0])


def to_learn_from(count: int) -> TrainingSet:
    database, queries = seen_twice(0, count)
    road = along_a_road(count)
    return TrainingSet(Loaded(queries), Loaded(database), road, road)


def to_validate_on(count: int) -> ValidationSet:
    database, queries = seen_twice(1000, count)
    return ValidationSet(Loaded(queries), Loaded(database), [np.array([n]) for n in range(count)])
