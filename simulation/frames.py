"""Plots as they are seen from the street, and boxes placed on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vladmap.simulation.quads import UP, Look, QuadBuilder, Vector, rightwards


@dataclass(frozen=True)
class Frame:
    """A plot seen from the street: `along` to the right, `out` towards the viewer, `foot` at the
    left end of the building line."""

    foot: Vector
    out: Vector

    @property
    def along(self) -> Vector:
        return rightwards(self.out)

    def point(self, along: float, out: float, up: float) -> Vector:
        return self.foot + along * self.along + out * self.out + up * UP

    def corners(
        self, along: tuple[float, float], out: tuple[float, float], up: tuple[float, float]
    ) -> tuple[Vector, Vector]:
        a, b = (self.point(along[k], out[k], up[k]) for k in (0, 1))
        return np.minimum(a, b), np.maximum(a, b)

    def side(self, vector: Vector) -> str:
        names = {(1, 0): "east", (-1, 0): "west", (0, 1): "north", (0, -1): "south"}
        return names[round(vector[0]), round(vector[1])]

    def box(
        self,
        quads: QuadBuilder,
        along: tuple[float, float],
        out: tuple[float, float],
        up: tuple[float, float],
        look: Look,
        tiles: dict[str, NDArray[np.int64]] | None = None,
        *,
        bottom: bool = False,
    ) -> None:
        """Add a box that spans the given ranges; `tiles` as for `QuadBuilder.box`."""
        low, high = self.corners(along, out, up)
        quads.box(low, high, look, tiles, bottom=bottom)


def draw_stain(rng: np.random.Generator) -> tuple[float, float]:
    """A random place in the stain textures, so that no two surfaces have the same dirt."""
    return float(rng.random()), float(rng.random())
