"""A city from a seed: blocks of houses along a grid of streets, all of it textured quads."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vladmap.simulation.character import Character
from vladmap.simulation.frames import Frame, draw_stain
from vladmap.simulation.gardens import GardenBuilder, add_hills
from vladmap.simulation.houses import HouseBuilder
from vladmap.simulation.layout import Layout, ends_of
from vladmap.simulation.materials import Material, paint_materials, paint_stains
from vladmap.simulation.open_spaces import OpenSpaces
from vladmap.simulation.quads import EAST, NORTH, SOUTH, UP, WEST, Look, QuadBuilder, Quads, Vector
from vladmap.simulation.textures import TextureArray
from vladmap.simulation.tiles import Tiles, paint_tiles

KERB = 0.14
_SAMPLE = Character()
PITCH = _SAMPLE.pitch  # the sample city's

_IDENTICAL_HOUSES = 3
_ROAD_TILE = 4.0
CLOSED_BEFORE = 26.0
"""m before the middle of the next crossing where the house stands that closes a street."""


@dataclass(frozen=True, eq=False)
class City:
    """Streets run along x = i * pitch[0] and y = j * pitch[1]; block (i, j) lies north-east of
    crossing (i, j). The frame is east-north-up in metres, the road's surface at height 0.
    """

    seed: int
    blocks: tuple[int, int]  # how many blocks can be driven around, east and north
    character: Character
    quads: Quads
    scenery: int  # so many of the first quads are far away: they cast no shadow
    tile_kinds: Tiles
    tiles: TextureArray
    glass: TextureArray  # where light comes through each tile by night
    materials: TextureArray
    stains: TextureArray
    identical: NDArray[np.float64]  # (H, 4, 3) m: corners of the fronts of the identical houses
    fronts: NDArray[np.float64]  # (H, 4, 3) m: corners of all fronts, from the lower left
    lamps: NDArray[np.float64]  # (L, 3) m: the street lamps' heads
    trees: NDArray[np.float64]  # (T, 7): foot (3, m) and what `trees.draw_tree` gives
    lit: Tensor | None = None  # (tiles of `quads`, 3) light from behind each; None: dark

    def to(self, device: torch.device | str) -> City:
        return replace(
            self,
            quads=self.quads.to(device),
            tiles=self.tiles.to(device),
            glass=self.glass.to(device),
            materials=self.materials.to(device),
            stains=self.stains.to(device),
            lit=None if self.lit is None else self.lit.to(device),
        )


def build_city(
    seed: int,
    blocks: tuple[int, int] = (1, 1),
    device: torch.device | str = "cpu",
    character: Character = _SAMPLE,
    layout: Layout | None = None,
) -> City:
    """The city of `seed` with east x north blocks to drive around, a ring of blocks around them
    and a row of houses that closes the streets' ends. The same arguments give the same city.

    Without a layout, every other house across the street from the north side of block (0, 0) is
    the same one (perceptual aliasing).
    """
    rng = np.random.default_rng([seed, 1])
    tile_array, glass, tiles = paint_tiles(
        rng, character.window_styles, character.window_variants, chains=character.chains > 0
    )
    builder = _CityBuilder(seed, tiles, character, layout)
    scenery = builder.ground(blocks)
    for i in range(-1, blocks[0] + 1):
        for j in range(-1, blocks[1] + 1):
            builder.block(i, j)
    builder.closing_rows(blocks)
    builder.dead_ends()
    city = City(
        seed=seed,
        blocks=blocks,
        character=character,
        quads=builder.quads.finish(),
        scenery=scenery,
        tile_kinds=tiles,
        tiles=tile_array,
        glass=glass,
        materials=paint_materials(rng),
        stains=paint_stains(rng, character.stains),
        identical=np.array(builder.identical).reshape(-1, 4, 3),
        fronts=np.array(builder.fronts).reshape(-1, 4, 3),
        lamps=np.array(builder.lamps).reshape(-1, 3),
        trees=np.array(builder.trees).reshape(-1, 7),
    )
    return city.to(device)


class _CityBuilder:
    def __init__(
        self, seed: int, tiles: Tiles, character: Character, layout: Layout | None
    ) -> None:
        self.seed = seed
        self.sample = layout is None
        self.layout = layout or Layout()
        self.tiles = tiles
        self.character = character
        self.quads = QuadBuilder()
        self.houses = HouseBuilder(self.quads, tiles, character)
        self.gardens = GardenBuilder(self.quads, character)
        self.open = OpenSpaces(self.quads, self.gardens, tiles)
        self.identical: list[Vector] = []
        self.fronts: list[Vector] = []
        self.lamps: list[Vector] = []
        self.trees = self.gardens.trees

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, 2, *(value + 1000 for value in key)])

    # --- streets -------------------------------------------------------------------------------

    def ground(self, blocks: tuple[int, int]) -> int:
        """The open country and the streets; returns how many quads the former has."""
        low, high = self._bounds(blocks)
        pitch, half = self.character.pitch, self.character.road_half_width
        far = 1500.0
        self.quads.quad(
            np.array([low[0] - far, low[1] - far, -0.05]), EAST, NORTH,
            float(high[0] - low[0] + 2 * far), float(high[1] - low[1] + 2 * far),
            Look(Material.GRASS, self.character.grass),
        )  # fmt: skip
        if self.character.hills > 0:
            middle = 0.5 * (low + high)
            add_hills(self.quads, middle, self.character, self._rng(0, 0, 40))
        scenery = len(self.quads)
        for i in range(-1, blocks[0] + 2):
            for j in range(-1, blocks[1] + 2):
                rng = self._rng(i, j, 50)
                x, y = i * pitch[0], j * pitch[1]
                look = self._asphalt(rng)
                corner = np.array([x - half, y - half, 0.0])
                covers = rng.choice([0, *self.tiles.manholes], (2, 2))
                width = 2 * half
                self.quads.quad(corner, EAST, NORTH, width, width, look, covers)
                if i <= blocks[0]:
                    start = np.array([x + half, y - half, 0.0])
                    self._road(start, EAST, NORTH, pitch[0] - width, rng)
                if j <= blocks[1]:
                    start = np.array([x + half, y + half, 0.0])
                    self._road(start, NORTH, WEST, pitch[1] - width, rng)
        return scenery

    def _bounds(self, blocks: tuple[int, int]) -> tuple[Vector, Vector]:
        """(2,) corners of what is built, without the closing rows."""
        pitch, half = self.character.pitch, self.character.street_half_width
        return -np.array(pitch) - half, (np.array(blocks) + 1.0) * pitch + half

    def _asphalt(self, rng: np.random.Generator) -> Look:
        grey = float(rng.uniform(0.36, 0.46))
        return Look(Material.ASPHALT, (grey, grey, grey * 1.02), draw_stain(rng))

    def _road(
        self, corner: Vector, u: Vector, v: Vector, length: float, rng: np.random.Generator
    ) -> None:
        columns = round(length / _ROAD_TILE)
        tiles = np.zeros((2, columns), np.int64)
        tiles[0] = rng.choice(self.tiles.dashes, columns)
        worn = rng.random(columns) < 0.35
        tiles[1, worn] = rng.choice(self.tiles.manholes, int(worn.sum()))
        tiles[:, [0, -1]] = self.tiles.crossing
        self.quads.quad(
            corner, u, v, length, 2 * self.character.road_half_width, self._asphalt(rng), tiles
        )

    def _lamp(self, frame: Frame, along: float) -> None:
        look = Look(Material.METAL, (0.22, 0.26, 0.25))
        out, top = self.character.pavement - 0.5, self.character.lamp_height
        pole, foot = (along - 0.07, along + 0.07), (along - 0.16, along + 0.16)
        frame.box(self.quads, pole, (out - 0.07, out + 0.07), (0.0, top), look)
        frame.box(self.quads, foot, (out - 0.16, out + 0.16), (0.0, 0.6), look)
        arm, head = (along - 0.05, along + 0.05), (along - 0.17, along + 0.17)
        up = (top - 0.1, top + 0.02)
        frame.box(self.quads, arm, (out, out + 1.6), up, look, bottom=True)
        bright = replace(look.shaded(2.5), glow=4.0)
        up = (top - 0.24, top - 0.1)
        frame.box(self.quads, head, (out + 1.0, out + 1.8), up, bright, bottom=True)
        self.lamps.append(frame.point(along, out + 1.4, top - 0.3))

    def _furniture(
        self, frame: Frame, length: float, rng: np.random.Generator, planted: bool
    ) -> None:
        """What stands on the pavement along a side of `length` metres."""
        for along in np.arange(8.0, length - 6.0, self.character.lamp_spacing):
            self._lamp(frame, float(along + rng.uniform(-1.5, 1.5)))
        if planted:
            self.gardens.street_trees(frame, length, rng)
        kiosks = self.character.pavement >= 2.6 and not self.character.yards
        # Everything below is laid out for the sample's pavement.
        frame = Frame(frame.point(0.0, self.character.pavement - _SAMPLE.pavement, 0.0), frame.out)
        for along in np.arange(13.0, length - 8.0, 9.0):
            start = float(along + rng.uniform(-2.0, 2.0))
            kind = rng.choice(["kiosk", "bin", "cabinet", "post", "planter", "none"])
            tint = tuple(float(value) for value in rng.uniform(0.15, 0.75, 3))
            look = Look(Material.METAL, (tint[0], tint[1], tint[2]), draw_stain(rng))
            if kind == "kiosk" and kiosks:
                size, depth, height = rng.uniform(1.6, 2.6), 1.2, rng.uniform(2.3, 2.8)
                posters = rng.choice(self.tiles.posters, (4, 1, 2))
                sides = dict(zip(("east", "west", "north", "south"), posters, strict=True))
                frame.box(
                    self.quads,
                    (start, start + size),
                    (1.3, 1.3 + depth),
                    (0.0, height),
                    look,
                    sides,
                )
                frame.box(self.quads, (start - 0.2, start + size + 0.2), (1.1, 1.5 + depth),
                    (height, height + 0.16), look.shaded(0.6), bottom=True,
                )  # fmt: skip
            elif kind == "cabinet":
                poster = {frame.side(frame.out): rng.choice(self.tiles.posters, (1, 1))}
                frame.box(self.quads, (start, start + 1.1), (0.1, 0.55), (0.0, 1.35), look, poster)
            elif kind == "bin":
                frame.box(self.quads, (start, start + 0.45), (2.1, 2.55), (0.0, 1.0), look)
            elif kind == "post":
                pole = Look(Material.METAL, (0.5, 0.5, 0.5))
                frame.box(self.quads, (start, start + 0.08), (2.4, 2.48), (0.0, 2.9), pole)
                plates = rng.choice(self.tiles.signs, (2, 1, 1))
                faces = {frame.side(frame.along): plates[0], frame.side(-frame.along): plates[1]}
                frame.box(self.quads, (start - 0.03, start), (2.05, 2.85), (2.3, 2.85), pole, faces,
                    bottom=True,
                )  # fmt: skip
            elif kind == "planter":
                frame.box(
                    self.quads, (start, start + 1.8), (2.0, 2.7), (0.0, 0.5), look.shaded(0.8)
                )
                green = Look(Material.GRASS, (0.22, 0.36, 0.16), draw_stain(rng))
                frame.box(self.quads, (start + 0.1, start + 1.7), (2.1, 2.6), (0.5, 1.1), green)

    # --- houses --------------------------------------------------------------------------------

    def block(self, i: int, j: int) -> None:
        """Pavement, houses around the block and what stands before them."""
        pitch, plot = self.character.pitch, self.character.house_depth
        street = self.character.street_half_width * (EAST + NORTH)
        low = np.array([i * pitch[0], j * pitch[1], 0.0]) + street
        high = np.array([(i + 1) * pitch[0], (j + 1) * pitch[1], 0.0]) - street
        rng = self._rng(i, j, 60)
        grey = float(rng.uniform(0.52, 0.64))
        paving = Look(Material.PAVING, (grey, grey * 0.98, grey * 0.94), draw_stain(rng))
        border = self.character.pavement * (EAST + NORTH)
        self.quads.box(low - border, high + border + KERB * UP, paving)
        width, depth = float(high[0] - low[0]), float(high[1] - low[1])
        base = KERB * UP
        if self.character.yards:
            self.gardens.lawn(low + base, width, depth, rng)
        sides = (
            (Frame(low + base, SOUTH), 0.0, width),
            (Frame(high + base, NORTH), 0.0, width),
            (Frame(np.array([high[0], low[1], KERB]), EAST), plot, depth - plot),
            (Frame(np.array([low[0], high[1], KERB]), WEST), plot, depth - plot),
        )
        for side, (frame, start, end) in enumerate(sides):
            ends_at_streets = side < 2
            terrace = self.sample and (i, j) == (0, 1) and side == 0
            if (i, j) not in self.layout.parks | self.layout.squares:
                self._row(frame, start, end, (i, j, side), ends_at_streets, terrace)
            planted = self.character.tree_spacing > 0
            planted &= self.sample or (i, j, side) in self.layout.trees
            self._furniture(frame, end + start, self._rng(i, j, side, 70), planted)
        if (i, j) in self.layout.parks:
            self.open.park(low + base, high + base, self._rng(i, j, 75))
        if (i, j) in self.layout.squares:
            self.open.square(low + base, high + base, self._rng(i, j, 75))

    def closing_rows(self, blocks: tuple[int, int]) -> None:
        low, high = self._bounds(blocks)
        width, depth = float(high[0] - low[0]), float(high[1] - low[1])
        rows = (
            (Frame(np.array([low[0], high[1], 0.0]), SOUTH), width),
            (Frame(np.array([high[0], low[1], 0.0]), NORTH), width),
            (Frame(np.array([low[0], low[1], 0.0]), EAST), depth),
            (Frame(np.array([high[0], high[1], 0.0]), WEST), depth),
        )
        for side, (frame, length) in enumerate(rows):
            self._row(frame, 0.0, length, (500, side, 0), False, False)

    def dead_ends(self) -> None:
        """A house across each street that ends blindly; its front looks down the street."""
        pitch, half = np.array(self.character.pitch), self.character.street_half_width
        for i, j, axis in sorted(self.layout.closed):
            far = np.array(ends_of((i, j, axis))[1]) * pitch
            front = WEST if axis == 0 else SOUTH
            frame = Frame(np.array([*far, 0.0]) + CLOSED_BEFORE * front, front)
            frame = Frame(frame.point(-half, 0.0, 0.0), front)
            self._row(frame, 0.0, 2 * half, (i, j, 200 + axis), False, False)

    def _row(
        self,
        frame: Frame,
        start: float,
        end: float,
        key: tuple[int, int, int],
        ends_at_streets: bool,
        terrace: bool,
    ) -> None:
        """Houses side by side from `start` to `end` along a building line."""
        all_alike = key in self.layout.terraces
        if key[:2] in self.layout.repeated:
            key = (700 + self.layout.repeated[key[0], key[1]], 0, key[2])
        rng = self._rng(*key, 80)
        usual = max(1, round((end - start) / self.character.house_width))
        count = 2 * _IDENTICAL_HOUSES - 1 if terrace else usual
        widths = np.ones(count) if terrace or all_alike else rng.uniform(0.75, 1.25, count)
        widths *= (end - start) / widths.sum()
        lefts = start + np.cumsum(widths) - widths
        empty = self._rng(*key, 85).random(count) < self.character.vacancy
        designs = self._rng(*key, 86).integers(max(1, self.character.designs), size=count)
        for k, (left, width) in enumerate(zip(lefts, widths, strict=True)):
            plot = Frame(frame.point(float(left), 0.0, 0.0), frame.out)
            twin = all_alike or (terrace and k % 2 == 0)
            if not twin and self.character.yards:
                self.gardens.garden(plot, float(width), bool(empty[k]), self._rng(*key, 300 + k))
            if not twin and empty[k]:
                continue
            house_rng = self._rng(*key, 90) if twin else self._rng(*key, 91 + k)
            if not twin and self.character.designs:
                house_rng = self._rng(600, int(designs[k]), 0, 90)
            sides = (ends_at_streets and k == 0, ends_at_streets and k == len(widths) - 1)
            front = self.houses.add(plot, float(width), sides, house_rng)
            self.fronts.append(front)
            if twin:
                self.identical.append(front)
