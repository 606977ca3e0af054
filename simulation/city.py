"""A city from a seed: blocks of houses along a grid of streets, all of it textured quads."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from simulation.paint import Material, Tiles, paint_materials, paint_stains, paint_tiles
from simulation.quads import (
    EAST,
    NORTH,
    SOUTH,
    UP,
    WEST,
    Look,
    QuadBuilder,
    Quads,
    Vector,
    rightwards,
)
from simulation.textures import TextureArray

ROAD_HALF_WIDTH = 4.0
PAVEMENT = 3.0
KERB = 0.14
STREET_HALF_WIDTH = ROAD_HALF_WIDTH + PAVEMENT
PITCH = (74.0, 88.0)  # metres between the centre lines of parallel streets, east and north

_HOUSE_DEPTH = 11.0
_IDENTICAL_HOUSES = 3
_ROAD_TILE = 4.0

_WALL_TINTS = (
    (0.80, 0.74, 0.62), (0.72, 0.42, 0.32), (0.86, 0.80, 0.70), (0.62, 0.66, 0.70),
    (0.88, 0.74, 0.48), (0.66, 0.72, 0.62), (0.80, 0.60, 0.52), (0.92, 0.90, 0.86),
    (0.56, 0.50, 0.46), (0.74, 0.68, 0.76), (0.60, 0.34, 0.28), (0.90, 0.84, 0.60),
)  # fmt: skip
_WALL_MATERIALS = (
    Material.BRICK, Material.BRICK, Material.ASHLAR, Material.PLASTER, Material.PLASTER,
    Material.PANELS, Material.BOARDS,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class City:
    """Streets run along x = i * PITCH[0] and y = j * PITCH[1]; block (i, j) lies north-east of
    crossing (i, j). The frame is east-north-up in metres, the road's surface at height 0.
    """

    seed: int
    blocks: tuple[int, int]  # how many blocks can be driven around, east and north
    quads: Quads
    tiles: TextureArray
    materials: TextureArray
    stains: TextureArray
    identical: NDArray[np.float64]  # (H, 4, 3) m: corners of the fronts of the identical houses

    def to(self, device: torch.device | str) -> City:
        return replace(
            self,
            quads=self.quads.to(device),
            tiles=self.tiles.to(device),
            materials=self.materials.to(device),
            stains=self.stains.to(device),
        )


def build_city(
    seed: int, blocks: tuple[int, int] = (1, 1), device: torch.device | str = "cpu"
) -> City:
    """The city of `seed` with east x north blocks to drive around, a ring of blocks around them
    and a row of houses that closes the streets' ends. The same arguments give the same city.

    Across the street from the north side of block (0, 0) every other house is the same one
    (perceptual aliasing).
    """
    rng = np.random.default_rng([seed, 1])
    tile_array, tiles = paint_tiles(rng)
    builder = _CityBuilder(seed, tiles)
    builder.ground(blocks)
    for i in range(-1, blocks[0] + 1):
        for j in range(-1, blocks[1] + 1):
            builder.block(i, j)
    builder.closing_rows(blocks)
    city = City(
        seed=seed,
        blocks=blocks,
        quads=builder.quads.finish(),
        tiles=tile_array,
        materials=paint_materials(rng),
        stains=paint_stains(rng),
        identical=np.stack(builder.identical),
    )
    return city.to(device)


@dataclass(frozen=True)
class _Frame:
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


@dataclass(frozen=True)
class _House:
    """A house as its front is seen. Lengths in metres; `ground`: height of the ground floor."""

    front: _Frame
    width: float
    ground: float
    storey: float
    floors: int
    look: Look
    shop: bool

    @property
    def height(self) -> float:
        return self.ground + self.floors * self.storey


class _CityBuilder:
    def __init__(self, seed: int, tiles: Tiles) -> None:
        self.seed = seed
        self.tiles = tiles
        self.quads = QuadBuilder()
        self.identical: list[Vector] = []

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, 2, *(value + 1000 for value in key)])

    # --- streets -------------------------------------------------------------------------------

    def ground(self, blocks: tuple[int, int]) -> None:
        low = np.array([-1.0, -1.0]) * PITCH - STREET_HALF_WIDTH
        high = (np.array(blocks) + 1.0) * PITCH + STREET_HALF_WIDTH
        far = 1500.0
        self.quads.quad(
            np.array([low[0] - far, low[1] - far, -0.05]), EAST, NORTH,
            float(high[0] - low[0] + 2 * far), float(high[1] - low[1] + 2 * far),
            Look(Material.GRASS, (0.42, 0.46, 0.32)),
        )  # fmt: skip
        for i in range(-1, blocks[0] + 2):
            for j in range(-1, blocks[1] + 2):
                rng = self._rng(i, j, 50)
                x, y = i * PITCH[0], j * PITCH[1]
                look = self._asphalt(rng)
                corner = np.array([x - ROAD_HALF_WIDTH, y - ROAD_HALF_WIDTH, 0.0])
                covers = rng.choice([0, *self.tiles.manholes], (2, 2))
                width = 2 * ROAD_HALF_WIDTH
                self.quads.quad(corner, EAST, NORTH, width, width, look, covers)
                if i <= blocks[0]:
                    start = np.array([x + ROAD_HALF_WIDTH, y - ROAD_HALF_WIDTH, 0.0])
                    self._road(start, EAST, NORTH, PITCH[0] - width, rng)
                if j <= blocks[1]:
                    start = np.array([x + ROAD_HALF_WIDTH, y + ROAD_HALF_WIDTH, 0.0])
                    self._road(start, NORTH, WEST, PITCH[1] - width, rng)

    def _asphalt(self, rng: np.random.Generator) -> Look:
        grey = float(rng.uniform(0.36, 0.46))
        return Look(Material.ASPHALT, (grey, grey, grey * 1.02), _stain(rng))

    def _road(
        self, corner: Vector, u: Vector, v: Vector, length: float, rng: np.random.Generator
    ) -> None:
        columns = round(length / _ROAD_TILE)
        tiles = np.zeros((2, columns), np.int64)
        tiles[0] = rng.choice(self.tiles.dashes, columns)
        worn = rng.random(columns) < 0.35
        tiles[1, worn] = rng.choice(self.tiles.manholes, int(worn.sum()))
        tiles[:, [0, -1]] = self.tiles.crossing
        self.quads.quad(corner, u, v, length, 2 * ROAD_HALF_WIDTH, self._asphalt(rng), tiles)

    def _lamp(self, frame: _Frame, along: float) -> None:
        look = Look(Material.METAL, (0.22, 0.26, 0.25))
        out = PAVEMENT - 0.5
        self._box(frame, (along - 0.07, along + 0.07), (out - 0.07, out + 0.07), (0.0, 5.6), look)
        self._box(frame, (along - 0.16, along + 0.16), (out - 0.16, out + 0.16), (0.0, 0.6), look)
        self._box(
            frame, (along - 0.05, along + 0.05), (out, out + 1.6), (5.5, 5.62), look, bottom=True
        )
        self._box(
            frame, (along - 0.17, along + 0.17), (out + 1.0, out + 1.8), (5.36, 5.5),
            look.shaded(2.5), bottom=True,
        )  # fmt: skip

    def _furniture(self, frame: _Frame, length: float, rng: np.random.Generator) -> None:
        """What stands on the pavement along a side of `length` metres."""
        for along in np.arange(8.0, length - 6.0, 21.0):
            self._lamp(frame, float(along + rng.uniform(-1.5, 1.5)))
        for along in np.arange(13.0, length - 8.0, 9.0):
            start = float(along + rng.uniform(-2.0, 2.0))
            kind = rng.choice(["kiosk", "bin", "cabinet", "post", "planter", "none"])
            tint = tuple(float(value) for value in rng.uniform(0.15, 0.75, 3))
            look = Look(Material.METAL, (tint[0], tint[1], tint[2]), _stain(rng))
            if kind == "kiosk":
                size, depth, height = rng.uniform(1.6, 2.6), 1.2, rng.uniform(2.3, 2.8)
                posters = rng.choice(self.tiles.posters, (4, 1, 2))
                sides = dict(zip(("east", "west", "north", "south"), posters, strict=True))
                self._box(
                    frame, (start, start + size), (1.3, 1.3 + depth), (0.0, height), look, sides
                )
                self._box(
                    frame, (start - 0.2, start + size + 0.2), (1.1, 1.5 + depth),
                    (height, height + 0.16), look.shaded(0.6), bottom=True,
                )  # fmt: skip
            elif kind == "cabinet":
                poster = {frame.side(frame.out): rng.choice(self.tiles.posters, (1, 1))}
                self._box(frame, (start, start + 1.1), (0.1, 0.55), (0.0, 1.35), look, poster)
            elif kind == "bin":
                self._box(frame, (start, start + 0.45), (2.1, 2.55), (0.0, 1.0), look)
            elif kind == "post":
                pole = Look(Material.METAL, (0.5, 0.5, 0.5))
                self._box(frame, (start, start + 0.08), (2.4, 2.48), (0.0, 2.9), pole)
                plates = rng.choice(self.tiles.signs, (2, 1, 1))
                faces = {frame.side(frame.along): plates[0], frame.side(-frame.along): plates[1]}
                self._box(
                    frame, (start - 0.03, start), (2.05, 2.85), (2.3, 2.85), pole, faces,
                    bottom=True,
                )  # fmt: skip
            elif kind == "planter":
                self._box(frame, (start, start + 1.8), (2.0, 2.7), (0.0, 0.5), look.shaded(0.8))
                green = Look(Material.GRASS, (0.22, 0.36, 0.16), _stain(rng))
                self._box(frame, (start + 0.1, start + 1.7), (2.1, 2.6), (0.5, 1.1), green)

    # --- houses --------------------------------------------------------------------------------

    def block(self, i: int, j: int) -> None:
        """Pavement, houses around the block and what stands before them."""
        low = np.array([i * PITCH[0], j * PITCH[1], 0.0]) + STREET_HALF_WIDTH * (EAST + NORTH)
        high = np.array([(i + 1) * PITCH[0], (j + 1) * PITCH[1], 0.0])
        high -= STREET_HALF_WIDTH * (EAST + NORTH)
        rng = self._rng(i, j, 60)
        grey = float(rng.uniform(0.52, 0.64))
        paving = Look(Material.PAVING, (grey, grey * 0.98, grey * 0.94), _stain(rng))
        border = PAVEMENT * (EAST + NORTH)
        self.quads.box(low - border, high + border + KERB * UP, paving)
        width, depth = float(high[0] - low[0]), float(high[1] - low[1])
        base = KERB * UP
        sides = (
            (_Frame(low + base, SOUTH), 0.0, width),
            (_Frame(high + base, NORTH), 0.0, width),
            (_Frame(np.array([high[0], low[1], KERB]), EAST), _HOUSE_DEPTH, depth - _HOUSE_DEPTH),
            (_Frame(np.array([low[0], high[1], KERB]), WEST), _HOUSE_DEPTH, depth - _HOUSE_DEPTH),
        )
        for side, (frame, start, end) in enumerate(sides):
            ends_at_streets = side < 2
            terrace = (i, j) == (0, 1) and side == 0
            self._row(frame, start, end, (i, j, side), ends_at_streets, terrace)
            self._furniture(frame, end + start, self._rng(i, j, side, 70))

    def closing_rows(self, blocks: tuple[int, int]) -> None:
        low = np.array([-1.0, -1.0]) * PITCH - STREET_HALF_WIDTH
        high = (np.array(blocks) + 1.0) * PITCH + STREET_HALF_WIDTH
        width, depth = float(high[0] - low[0]), float(high[1] - low[1])
        rows = (
            (_Frame(np.array([low[0], high[1], 0.0]), SOUTH), width),
            (_Frame(np.array([high[0], low[1], 0.0]), NORTH), width),
            (_Frame(np.array([low[0], low[1], 0.0]), EAST), depth),
            (_Frame(np.array([high[0], high[1], 0.0]), WEST), depth),
        )
        for side, (frame, length) in enumerate(rows):
            self._row(frame, 0.0, length, (500, side, 0), False, False)

    def _row(
        self,
        frame: _Frame,
        start: float,
        end: float,
        key: tuple[int, int, int],
        ends_at_streets: bool,
        terrace: bool,
    ) -> None:
        """Houses side by side from `start` to `end` along a building line."""
        rng = self._rng(*key, 80)
        count = 2 * _IDENTICAL_HOUSES - 1 if terrace else max(1, round((end - start) / 10.5))
        widths = np.ones(count) if terrace else rng.uniform(0.75, 1.25, count)
        widths *= (end - start) / widths.sum()
        lefts = start + np.cumsum(widths) - widths
        for k, (left, width) in enumerate(zip(lefts, widths, strict=True)):
            plot = _Frame(frame.point(float(left), 0.0, 0.0), frame.out)
            twin = terrace and k % 2 == 0
            house_rng = self._rng(*key, 90) if twin else self._rng(*key, 91 + k)
            sides = (ends_at_streets and k == 0, ends_at_streets and k == len(widths) - 1)
            front = self._house(plot, float(width), sides, house_rng)
            if twin:
                self.identical.append(front)

    def _house(
        self, plot: _Frame, width: float, sides: tuple[bool, bool], rng: np.random.Generator
    ) -> Vector:
        """One house on its plot; `sides`: whether the left and right ends face a street.

        Returns the (4, 3) corners of its front.
        """
        setback = float(rng.choice([0.0, 0.0, 0.3, 0.7, 1.4]))
        front = _Frame(plot.point(0.0, -setback, 0.0), plot.out)
        floors, storey = int(rng.integers(2, 6)), float(rng.uniform(2.9, 3.5))
        ground = float(rng.uniform(3.7, 4.6))
        tint = np.array(_WALL_TINTS[rng.integers(len(_WALL_TINTS))]) * rng.uniform(0.85, 1.05, 3)
        look = Look(
            _WALL_MATERIALS[rng.integers(len(_WALL_MATERIALS))],
            (float(tint[0]), float(tint[1]), float(tint[2])),
            _stain(rng),
        )
        shop = bool(rng.random() < 0.6)
        house = _House(front, width, ground, storey, floors, look, shop)
        depth = _HOUSE_DEPTH - setback
        self._walls(house, depth, sides, rng)
        roof = Look(Material.BOARDS, (0.34, 0.24, 0.2), _stain(rng))
        low, _ = front.corners((0.0, width), (-depth, 0.0), (0.0, 0.0))
        size = np.abs(plot.along) * width + np.abs(plot.out) * depth
        top = low + house.height * UP
        self.quads.quad(top, EAST, NORTH, float(size[0]), float(size[1]), roof)
        self._relief(house, rng)
        outline = ((0.0, 0.0), (width, 0.0), (width, house.height), (0.0, house.height))
        return np.stack([front.point(along, 0.0, up) for along, up in outline])

    def _walls(
        self, house: _House, depth: float, sides: tuple[bool, bool], rng: np.random.Generator
    ) -> None:
        front, width, ground = house.front, house.width, house.ground
        base = replace(house.look.shaded(float(rng.uniform(0.6, 0.95))), stain=_stain(rng))
        if rng.random() < 0.5:
            base = replace(base, material=Material.ASHLAR)
        style = self.tiles.windows[rng.integers(len(self.tiles.windows))]
        walls = (
            (front.foot, front.out, width, True),
            (front.point(0.0, -depth, 0.0), -front.along, depth, sides[0]),
            (front.point(width, 0.0, 0.0), front.along, depth, sides[1]),
            (front.point(width, -depth, 0.0), -front.out, width, False),
        )
        # The ends draw from a generator of their own: a twin at a corner has its twins' front.
        generators = (rng, *rng.spawn(3))
        for (foot, normal, length, faces_street), draw in zip(walls, generators, strict=True):
            if not faces_street:
                self.quads.wall(foot, normal, length, house.height, house.look)
                continue
            columns = max(2, round(length / float(draw.uniform(2.4, 3.3))))
            # A permutation: neighbouring windows are furnished differently.
            windows = np.resize(draw.permutation(style), (house.floors, columns))
            windows[draw.random(windows.shape) < 0.06] = 0
            upper = house.height - ground
            self.quads.wall(foot + ground * UP, normal, length, upper, house.look, windows)
            openings = max(2, round(length / 4.0))
            if house.shop:
                row = draw.choice(self.tiles.shops, openings, replace=False)
            else:
                row = draw.choice(style, openings)
                row[draw.integers(openings)] = draw.choice(self.tiles.doors)
            self.quads.wall(foot, normal, length, ground, base, row[None])

    # --- what stands out from a front ----------------------------------------------------------

    def _relief(self, house: _House, rng: np.random.Generator) -> None:
        front, width, ground, height = house.front, house.width, house.ground, house.height
        red, green, blue = (min(1.0, 1.15 * channel) for channel in house.look.tint)
        trim = Look(Material.PLASTER, (red, green, blue), _stain(rng))
        whole = (0.0, width)
        self._box(front, whole, (-0.05, 0.42), (height - 0.35, height + 0.3), trim, bottom=True)
        self._box(front, whole, (-0.05, 0.2), (ground - 0.18, ground + 0.05), trim, bottom=True)
        if rng.random() < 0.4:  # pilasters
            for left in (0.0, width - 0.5):
                self._box(front, (left, left + 0.5), (-0.05, 0.22), (0.0, height - 0.35), trim)
        kind = rng.choice(["balconies", "bay", "none", "ventilators"])
        if kind == "balconies":
            self._balconies(house, trim, rng)
        elif kind == "bay":
            self._bay(house, rng)
        elif kind == "ventilators":
            self._ventilators(house, rng)
        if house.shop:
            self._shop_sign(house, rng)
        if rng.random() < 0.55:
            self._hanging_sign(house, rng)

    def _balconies(self, house: _House, trim: Look, rng: np.random.Generator) -> None:
        columns = max(2, round(house.width / 3.2))
        cell = house.width / columns
        slab = Look(Material.METAL, (0.3, 0.3, 0.32), _stain(rng))
        for floor, column in np.argwhere(rng.random((house.floors, columns)) < 0.35):
            along = (float(column * cell) + 0.25, float((column + 1) * cell) - 0.25)
            up = house.ground + float(floor * house.storey)
            self._box(house.front, along, (0.0, 1.0), (up + 0.1, up + 0.24), slab, bottom=True)
            self._box(house.front, along, (0.94, 1.0), (up + 0.24, up + 1.1), trim, bottom=True)

    def _bay(self, house: _House, rng: np.random.Generator) -> None:
        front = house.front
        style = self.tiles.windows[rng.integers(len(self.tiles.windows))]
        left = float(rng.uniform(0.8, max(0.9, house.width - 4.0)))
        sides = rng.choice(style, (3, house.floors, 1))
        faces = {
            front.side(front.out): sides[0],
            front.side(front.along): sides[1],
            front.side(-front.along): sides[2],
        }
        look = replace(house.look, stain=_stain(rng))
        up = (house.ground + 0.1, house.height - 0.6)
        self._box(front, (left, left + 3.0), (0.0, 0.9), up, look, faces, bottom=True)

    def _ventilators(self, house: _House, rng: np.random.Generator) -> None:
        metal = Look(Material.METAL, (0.66, 0.66, 0.64), _stain(rng))
        for _ in range(int(rng.integers(2, 5))):
            left = float(rng.uniform(0.3, house.width - 1.2))
            low = float(rng.uniform(house.ground + 0.3, house.height - 1.5))
            along, up = (left, left + 0.85), (low, low + 0.6)
            self._box(house.front, along, (0.0, 0.4), up, metal, bottom=True)

    def _shop_sign(self, house: _House, rng: np.random.Generator) -> None:
        """A board with the shop's name, sometimes with an awning below it."""
        front, ground = house.front, house.ground
        length = float(min(house.width - 1.0, rng.uniform(3.0, 5.0)))
        left = float(rng.uniform(0.3, house.width - length - 0.3))
        along = (left, left + length)
        board = Look(Material.METAL, (0.4, 0.4, 0.4), _stain(rng))
        name = {front.side(front.out): rng.choice(self.tiles.signs, (1, 1))}
        up = (ground - 1.0, ground - 0.25)
        self._box(front, along, (0.0, 0.16), up, board, name, bottom=True)
        if rng.random() < 0.5:
            red, green, blue = (float(value) for value in rng.uniform(0.15, 0.85, 3))
            cloth = Look(Material.BOARDS, (red, green, blue), _stain(rng))
            up = (ground - 1.25, ground - 1.05)
            self._box(front, along, (0.0, 1.25), up, cloth, bottom=True)

    def _hanging_sign(self, house: _House, rng: np.random.Generator) -> None:
        front = house.front
        along = float(rng.uniform(0.4, house.width - 0.4))
        low = house.ground + float(rng.uniform(0.2, 1.6))
        board = Look(Material.METAL, (0.3, 0.3, 0.3), _stain(rng))
        names = rng.choice(self.tiles.signs, (2, 1, 1))
        faces = {front.side(front.along): names[0], front.side(-front.along): names[1]}
        across, up = (along - 0.07, along + 0.07), (low, low + 0.8)
        self._box(front, across, (0.15, 1.35), up, board, faces, bottom=True)

    def _box(
        self,
        frame: _Frame,
        along: tuple[float, float],
        out: tuple[float, float],
        up: tuple[float, float],
        look: Look,
        tiles: dict[str, NDArray[np.int64]] | None = None,
        *,
        bottom: bool = False,
    ) -> None:
        low, high = frame.corners(along, out, up)
        self.quads.box(low, high, look, tiles, bottom=bottom)


def _stain(rng: np.random.Generator) -> tuple[float, float]:
    """A place of its own in the stains, so that no two surfaces share their dirt."""
    return float(rng.random()), float(rng.random())
