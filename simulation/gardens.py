"""Vegetation and terrain: lawns, hedges, the positions of trees, and distant hills."""

from __future__ import annotations

import numpy as np

from vladmap.simulation.character import Character
from vladmap.simulation.frames import Frame, draw_stain
from vladmap.simulation.materials import Material
from vladmap.simulation.quads import EAST, NORTH, UP, Look, QuadBuilder, Vector
from vladmap.simulation.trees import draw_tree

_RIDGES = ((260.0, 0.25), (520.0, 0.6), (1000.0, 1.0))  # distance (m), share of the height
_RIDGE_COLUMNS = 110
_SLOPE = 0.8  # of the hills, from the horizontal, in radians


class GardenBuilder:
    """Adds a city's gardens to its quads and notes its trees: rows as in `City.trees`."""

    def __init__(self, quads: QuadBuilder, character: Character) -> None:
        self.quads, self.character = quads, character
        self.trees: list[Vector] = []

    def lawn(self, corner: Vector, width: float, depth: float, rng: np.random.Generator) -> None:
        """Grass over a block up to the building lines."""
        look = Look(Material.GRASS, self.character.grass, draw_stain(rng))
        self.quads.quad(corner + 0.02 * UP, EAST, NORTH, width, depth, look)

    def street_trees(self, frame: Frame, length: float, rng: np.random.Generator) -> None:
        """A row of like trees at the kerb."""
        spacing, out = self.character.tree_spacing, self.character.pavement - 0.7
        first = draw_tree(rng)
        for along in np.arange(4.0, length - 3.0, spacing):
            if rng.random() < 0.85:
                size = rng.uniform(0.8, 1.15) * first[:2]
                at = frame.point(float(along), out, 0.0)
                self.trees.append(np.array([*at, *size, *first[2:]]))

    def garden(self, plot: Frame, width: float, empty: bool, rng: np.random.Generator) -> None:
        """What grows on a plot: all over it, or before and beside its house."""
        depth = self.character.house_depth
        count = int(rng.poisson(self.character.garden_trees * (2.5 if empty else 1.0)))
        for _ in range(min(count, 5)):
            along = rng.uniform(0.5, width - 0.5)
            out = -rng.uniform(1.0, depth) if empty else -rng.uniform(0.6, 1.8)
            self.trees.append(np.array([*plot.point(along, out, 0.0), *draw_tree(rng)]))
        kind = rng.choice(["hedge", "fence", "wall", "none"])
        across, line = (0.2, width - 0.2 - 2.5 * (not empty)), (-0.5, -0.1)
        if kind == "hedge":
            red, green, blue = rng.uniform(0.75, 1.0) * np.array([0.26, 0.38, 0.17])
            look = Look(Material.GRASS, (red, green, blue), draw_stain(rng))
            plot.box(self.quads, across, line, (0.0, rng.uniform(0.7, 1.7)), look)
        elif kind == "fence":
            grey = float(rng.uniform(0.3, 0.9))
            look = Look(Material.BOARDS, (grey, grey * 0.95, grey * 0.86), draw_stain(rng))
            plot.box(self.quads, across, (-0.2, -0.15), (0.0, rng.uniform(0.8, 1.4)), look)
        elif kind == "wall":
            grey = float(rng.uniform(0.4, 0.7))
            look = Look(Material.ASHLAR, (grey, grey * 0.97, grey * 0.92), draw_stain(rng))
            plot.box(self.quads, across, (-0.4, -0.1), (0.0, rng.uniform(0.5, 1.2)), look)


def add_hills(
    quads: QuadBuilder, middle: Vector, character: Character, rng: np.random.Generator
) -> None:
    """Ridges around a city, the nearer the lower: slopes that lean back, in strips."""
    angle = (np.arange(_RIDGE_COLUMNS) + 0.5) * (2 * np.pi / _RIDGE_COLUMNS)
    for distance, share in _RIDGES:
        waves = np.arange(1, 14)
        weights = rng.normal(0, 1, len(waves)) / waves**0.8
        shape = np.cos(angle[:, None] * waves + rng.uniform(0, 2 * np.pi, len(waves))) @ weights
        shape = (shape - shape.min()) / np.ptp(shape)
        height = character.hills * share * (0.15 + 0.85 * shape)
        width = 2.1 * distance * np.tan(np.pi / _RIDGE_COLUMNS)
        mix = rng.uniform(0.55, 1.0, 3) * np.array(character.grass)
        for turn, rise in zip(angle, height, strict=True):
            inward = np.array([-np.cos(turn), -np.sin(turn), 0.0])
            u = np.array([np.sin(turn), -np.cos(turn), 0.0])
            u = -u if np.cross(u, UP) @ inward < 0 else u
            v = -np.cos(_SLOPE) * inward + np.sin(_SLOPE) * UP
            foot = np.array([*middle, 0.0]) - distance * inward - 0.5 * width * u
            red, green, blue = mix * rng.uniform(0.93, 1.07)
            look = Look(Material.GRASS, (red, green, blue), draw_stain(rng))
            quads.quad(foot, u, v, float(width), float(rise / np.sin(_SLOPE)), look)
