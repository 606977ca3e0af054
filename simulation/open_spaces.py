"""Blocks without houses: parks and squares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vladmap.simulation.frames import draw_stain
from vladmap.simulation.gardens import GardenBuilder
from vladmap.simulation.materials import Material
from vladmap.simulation.quads import UP, Look, QuadBuilder, Vector
from vladmap.simulation.tiles import Tiles
from vladmap.simulation.trees import CONIFER, draw_tree

_SIDES = ("east", "west", "north", "south")
_EDGE = 4.0  # m from the border to what stands there


class OpenSpaces:
    """Adds parks and squares to the quads of a city; their trees are noted by `gardens`."""

    def __init__(self, quads: QuadBuilder, gardens: GardenBuilder, tiles: Tiles) -> None:
        self.quads, self.gardens, self.tiles = quads, gardens, tiles

    def park(self, low: Vector, high: Vector, rng: np.random.Generator) -> None:
        """Grass with groups of trees, hedges along the border, benches and a pavilion. `low` and
        `high`: (3,) corners of the ground, both on its height."""
        width, depth = (high - low)[:2]
        self.gardens.lawn(low, float(width), float(depth), rng)
        for _ in range(round(width * depth / 130.0)):
            at = low[:2] + rng.uniform(0.06, 0.94, 2) * [width, depth]
            self.gardens.trees.append(np.array([*at, low[2], *draw_tree(rng)]))
        for start in np.arange(0.0, 1.0, 0.125):
            for edge in range(4):
                if rng.random() < 0.55:
                    self._hedge(low, high, edge, float(start), rng)
        for _ in range(8):
            at = low + np.array([*(rng.uniform(0.1, 0.9, 2) * [width, depth]), 0.0])
            self._bench(at, rng)
        middle = 0.5 * (low + high) + np.array([*(rng.uniform(-0.2, 0.2, 2) * [width, depth]), 0.0])
        self._pavilion(middle, rng)

    def square(self, low: Vector, high: Vector, rng: np.random.Generator) -> None:
        """Pavement with a monument, stalls, columns with posters and a few trees at the corners."""
        width, depth = (high - low)[:2]
        middle = 0.5 * (low + high)
        stone = Look(Material.ASHLAR, self._tint(rng, 0.5, 0.8), draw_stain(rng))
        top = 0.0
        for half, rise in ((3.4, 0.35), (2.6, 0.35), (1.3, float(rng.uniform(2.0, 3.2)))):
            self._box(middle, half, half, (top, top + rise), stone)
            top += rise
        for k in range(3):  # a figure
            bronze = Look(Material.METAL, self._tint(rng, 0.2, 0.5), draw_stain(rng))
            half = float(rng.uniform(0.35, 0.9 - 0.2 * k))
            rise = float(rng.uniform(0.6, 1.3))
            self._box(middle, half, 0.8 * half, (top, top + rise), bronze)
            top += rise
        for _ in range(round(width * depth / 220.0)):
            share = rng.uniform(0.08, 0.92, 2)
            at = low + np.array([*(share * [width, depth]), 0.0])
            if np.linalg.norm(at - middle) > 8.0:
                self._stall(at, rng)
        for east in (_EDGE, width - _EDGE):
            for north in (_EDGE, depth - _EDGE):
                at = low + np.array([east, north, 0.0])
                self.gardens.trees.append(np.array([*at, *draw_tree(rng)]))

    def _stall(self, at: Vector, rng: np.random.Generator) -> None:
        metal = Look(Material.METAL, self._tint(rng, 0.15, 0.75), draw_stain(rng))
        kind = rng.choice(["stall", "column", "planter"])
        posters = rng.choice(self.tiles.posters, (4, 1, 1))
        faces = dict(zip(_SIDES, posters, strict=True))
        if kind == "stall":
            half = float(rng.uniform(1.0, 1.8))
            signs = dict(zip(_SIDES, rng.choice(self.tiles.signs, (4, 1, 1)), strict=True))
            boards = replace(metal, material=Material.BOARDS)
            self._box(at, half, 0.8 * half, (0.0, 1.1), boards, faces)
            self._box(at, half + 0.3, 0.8 * half + 0.3, (2.3, 2.9), metal, signs)
            for east in (-1.0, 1.0):
                post = at + np.array([east * (half - 0.1), 0.0, 0.0])
                self._box(post, 0.06, 0.06, (1.1, 2.3), metal)
        elif kind == "column":
            self._box(at, 0.6, 0.6, (0.0, 3.0), metal, faces)
            self._box(at, 0.75, 0.75, (3.0, 3.25), metal.shaded(0.6))
        else:
            green = Look(Material.GRASS, (0.24, 0.38, 0.17), draw_stain(rng))
            self._box(at, 1.1, 0.6, (0.0, 0.5), metal.shaded(0.8))
            self._box(at, 1.0, 0.5, (0.5, float(rng.uniform(0.8, 1.4))), green)

    def _hedge(
        self, low: Vector, high: Vector, edge: int, start: float, rng: np.random.Generator
    ) -> None:
        """An eighth of one border."""
        red, green, blue = rng.uniform(0.75, 1.0) * np.array([0.26, 0.38, 0.17])
        look = Look(Material.GRASS, (red, green, blue), draw_stain(rng))
        size = high - low
        axis = edge % 2
        across = 0.4 if edge < 2 else float(size[1 - axis]) - 0.9
        corner, far = low.copy(), low.copy()
        corner[axis] += start * size[axis]
        far[axis] += (start + 0.12) * size[axis]
        corner[1 - axis] += across
        far[1 - axis] += across + 0.5
        self.quads.box(corner, far + float(rng.uniform(0.6, 1.2)) * UP, look)

    def _bench(self, at: Vector, rng: np.random.Generator) -> None:
        wood = Look(Material.BOARDS, self._tint(rng, 0.3, 0.6), draw_stain(rng))
        self._box(at, 0.9, 0.22, (0.38, 0.46), wood)
        back = at + np.array([0.0, 0.22, 0.0])
        self._box(back, 0.9, 0.03, (0.4, 0.9), wood)
        for east in (-0.7, 0.7):
            self._box(at + np.array([east, 0.0, 0.0]), 0.05, 0.2, (0.0, 0.38), wood.shaded(0.5))

    def _pavilion(self, at: Vector, rng: np.random.Generator) -> None:
        white = Look(Material.PLASTER, self._tint(rng, 0.75, 0.95), draw_stain(rng))
        roof = Look(Material.BOARDS, self._tint(rng, 0.25, 0.5), draw_stain(rng))
        self._box(at, 3.2, 3.2, (0.0, 0.4), white.shaded(0.8))
        for east in (-2.8, 2.8):
            for north in (-2.8, 2.8):
                self._box(at + np.array([east, north, 0.0]), 0.15, 0.15, (0.4, 3.2), white)
        for k in range(4):
            self._box(at, 3.4 - 0.8 * k, 3.4 - 0.8 * k, (3.2 + 0.4 * k, 3.6 + 0.4 * k), roof)
        conifer = at + np.array([5.0, 4.0, 0.0])
        self.gardens.trees.append(np.array([*conifer, 9.0, 2.0, CONIFER, 60]))

    def _box(
        self,
        at: Vector,
        east: float,
        north: float,
        up: tuple[float, float],
        look: Look,
        tiles: dict[str, NDArray[np.int64]] | None = None,
    ) -> None:
        """A box around a place: half its lengths to the east and the north, and its heights."""
        half = np.array([east, north, 0.0])
        self.quads.box(at - half + up[0] * UP, at + half + up[1] * UP, look, tiles, bottom=True)

    @staticmethod
    def _tint(rng: np.random.Generator, low: float, high: float) -> tuple[float, float, float]:
        red, green, blue = rng.uniform(low, high, 3)
        return float(red), float(green), float(blue)
