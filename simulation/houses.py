"""Houses: walls with windows and shops, balconies and other parts of fronts, and roofs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vladmap.simulation.character import Character
from vladmap.simulation.frames import Frame, draw_stain
from vladmap.simulation.materials import Material
from vladmap.simulation.quads import EAST, NORTH, UP, Look, QuadBuilder, Vector
from vladmap.simulation.tiles import Tiles


@dataclass(frozen=True)
class House:
    """A house as its front is seen. Lengths in metres; `ground`: height of the ground floor."""

    front: Frame
    width: float
    ground: float
    storey: float
    floors: int
    look: Look
    shop: bool
    chain: tuple[int, int] | None = None  # tiles of its shop and its sign, if it belongs to one

    @property
    def height(self) -> float:
        return self.ground + self.floors * self.storey


_GABLE_STEPS = 9


class HouseBuilder:
    """Adds the houses of a city of some character to its quads."""

    def __init__(self, quads: QuadBuilder, tiles: Tiles, character: Character) -> None:
        self.quads, self.tiles, self.character = quads, tiles, character

    def add(
        self, plot: Frame, width: float, sides: tuple[bool, bool], rng: np.random.Generator
    ) -> Vector:
        """One house on its plot; `sides`: whether the left and right ends face a street.

        Returns the (4, 3) corners of its front.
        """
        kind = self.character
        setback = float(rng.choice(kind.setbacks))
        gap = min(kind.gap, 0.25 * width)
        width -= 2 * gap
        front = Frame(plot.point(gap, -setback, 0.0), plot.out)
        floors, storey = int(rng.integers(*kind.floors)), float(rng.uniform(*kind.storey))
        ground = float(rng.uniform(*kind.ground))
        tints, materials = kind.wall_tints, kind.wall_materials
        tint = np.array(tints[rng.integers(len(tints))]) * rng.uniform(*kind.tint_spread, 3)
        look = Look(
            materials[rng.integers(len(materials))],
            (float(tint[0]), float(tint[1]), float(tint[2])),
            draw_stain(rng),
        )
        shop = bool(rng.random() < kind.shops)
        chain = None
        if shop and kind.chains > 0 and rng.random() < kind.chains:
            chain = self.tiles.chains[rng.integers(len(self.tiles.chains))]
        house = House(front, width, ground, storey, floors, look, shop, chain)
        depth = kind.house_depth - setback
        self._walls(house, depth, (sides[0] or gap > 0, sides[1] or gap > 0), rng)
        roof = Look(Material.BOARDS, kind.roof_tints[0], draw_stain(rng))
        low, _ = front.corners((0.0, width), (-depth, 0.0), (0.0, 0.0))
        size = np.abs(plot.along) * width + np.abs(plot.out) * depth
        top = low + house.height * UP
        self.quads.quad(top, EAST, NORTH, float(size[0]), float(size[1]), roof)
        self._relief(house, rng)
        if kind.roof_slope > 0:
            self._roof(house, depth, rng)
        outline = ((0.0, 0.0), (width, 0.0), (width, house.height), (0.0, house.height))
        return np.stack([front.point(along, 0.0, up) for along, up in outline])

    def _roof(self, house: House, depth: float, rng: np.random.Generator) -> None:
        """Two slopes and the gables below them, in steps."""
        kind = self.character
        look = Look(
            Material.BOARDS, kind.roof_tints[rng.integers(len(kind.roof_tints))], draw_stain(rng)
        )
        frame, width = house.front, house.width
        if rng.random() < 0.35:  # the gable faces the street
            frame = Frame(frame.point(width, 0.0, 0.0), frame.along)
            width, depth = depth, width
        rise = min(0.5 * depth * kind.roof_slope, 5.0)
        eaves = 0.06 * depth
        run = 0.5 * depth + eaves
        length = float(np.hypot(run, run * rise / (0.5 * depth)))
        low = house.height - eaves * rise / (0.5 * depth)
        for start, end, out in ((0.0, eaves, -1.0), (width, -depth - eaves, 1.0)):
            u = -out * frame.along
            v = out * run * frame.out + (house.height + rise - low) * UP
            corner = frame.point(start, end, low) + 0.3 * out * frame.along
            self.quads.quad(corner, u, v / length, width + 0.6, length, look)
        step = rise / _GABLE_STEPS
        for k in range(_GABLE_STEPS):
            inset = 0.5 * depth * (k + 1) / _GABLE_STEPS
            up, across = house.height + k * step, depth - 2 * inset
            left = frame.point(0.0, -depth + inset, up)
            right = frame.point(width, -inset, up)
            self.quads.wall(left, -frame.along, across, step, house.look)
            self.quads.wall(right, frame.along, across, step, house.look)

    def _walls(
        self, house: House, depth: float, sides: tuple[bool, bool], rng: np.random.Generator
    ) -> None:
        front, width, ground = house.front, house.width, house.ground
        base = replace(house.look.shaded(float(rng.uniform(0.6, 0.95))), stain=draw_stain(rng))
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
            if house.chain is not None:
                row = np.full(openings, house.chain[0])
            elif house.shop:
                row = draw.choice(self.tiles.shops, openings, replace=False)
            else:
                row = draw.choice(style, openings)
                row[draw.integers(openings)] = draw.choice(self.tiles.doors)
            self.quads.wall(foot, normal, length, ground, base, row[None])

    # --- what stands out from a front ----------------------------------------------------------

    def _relief(self, house: House, rng: np.random.Generator) -> None:
        front, width, ground, height = house.front, house.width, house.ground, house.height
        red, green, blue = (min(1.0, 1.15 * channel) for channel in house.look.tint)
        trim = Look(Material.PLASTER, (red, green, blue), draw_stain(rng))
        whole = (0.0, width)
        front.box(
            self.quads, whole, (-0.05, 0.42), (height - 0.35, height + 0.3), trim, bottom=True
        )
        front.box(
            self.quads, whole, (-0.05, 0.2), (ground - 0.18, ground + 0.05), trim, bottom=True
        )
        if rng.random() < 0.4:  # pilasters
            for left in (0.0, width - 0.5):
                front.box(self.quads, (left, left + 0.5), (-0.05, 0.22), (0.0, height - 0.35), trim)
        kind = rng.choice(["balconies", "bay", "none", "ventilators"])
        if kind == "balconies":
            self._balconies(house, trim, rng)
        elif kind == "bay" and house.floors > 0:
            self._bay(house, rng)
        elif kind == "ventilators" and house.floors > 0:
            self._ventilators(house, rng)
        if house.shop:
            self._shop_sign(house, rng)
        if rng.random() < 0.55 and house.floors > 0:
            self._hanging_sign(house, rng)

    def _balconies(self, house: House, trim: Look, rng: np.random.Generator) -> None:
        columns = max(2, round(house.width / 3.2))
        cell = house.width / columns
        slab = Look(Material.METAL, (0.3, 0.3, 0.32), draw_stain(rng))
        for floor, column in np.argwhere(rng.random((house.floors, columns)) < 0.35):
            along = (float(column * cell) + 0.25, float((column + 1) * cell) - 0.25)
            up = house.ground + float(floor * house.storey)
            house.front.box(self.quads, along, (0.0, 1.0), (up + 0.1, up + 0.24), slab, bottom=True)
            house.front.box(
                self.quads, along, (0.94, 1.0), (up + 0.24, up + 1.1), trim, bottom=True
            )

    def _bay(self, house: House, rng: np.random.Generator) -> None:
        front = house.front
        style = self.tiles.windows[rng.integers(len(self.tiles.windows))]
        left = float(rng.uniform(0.8, max(0.9, house.width - 4.0)))
        sides = rng.choice(style, (3, house.floors, 1))
        faces = {
            front.side(front.out): sides[0],
            front.side(front.along): sides[1],
            front.side(-front.along): sides[2],
        }
        look = replace(house.look, stain=draw_stain(rng))
        up = (house.ground + 0.1, house.height - 0.6)
        front.box(self.quads, (left, left + 3.0), (0.0, 0.9), up, look, faces, bottom=True)

    def _ventilators(self, house: House, rng: np.random.Generator) -> None:
        metal = Look(Material.METAL, (0.66, 0.66, 0.64), draw_stain(rng))
        for _ in range(int(rng.integers(2, 5))):
            left = float(rng.uniform(0.3, house.width - 1.2))
            low = float(rng.uniform(house.ground + 0.3, house.height - 1.5))
            along, up = (left, left + 0.85), (low, low + 0.6)
            house.front.box(self.quads, along, (0.0, 0.4), up, metal, bottom=True)

    def _shop_sign(self, house: House, rng: np.random.Generator) -> None:
        """A board with the shop's name, sometimes with an awning below it."""
        front, ground = house.front, house.ground
        length = float(min(house.width - 1.0, rng.uniform(3.0, 5.0)))
        left = float(rng.uniform(0.3, house.width - length - 0.3))
        along = (left, left + length)
        board = Look(Material.METAL, (0.4, 0.4, 0.4), draw_stain(rng))
        sign = rng.choice(self.tiles.signs, (1, 1))
        if house.chain is not None:
            sign = np.array([[house.chain[1]]])
        name = {front.side(front.out): sign}
        up = (ground - 1.0, ground - 0.25)
        front.box(self.quads, along, (0.0, 0.16), up, board, name, bottom=True)
        if rng.random() < 0.5:
            red, green, blue = (float(value) for value in rng.uniform(0.15, 0.85, 3))
            cloth = Look(Material.BOARDS, (red, green, blue), draw_stain(rng))
            up = (ground - 1.25, ground - 1.05)
            front.box(self.quads, along, (0.0, 1.25), up, cloth, bottom=True)

    def _hanging_sign(self, house: House, rng: np.random.Generator) -> None:
        front = house.front
        along = float(rng.uniform(0.4, house.width - 0.4))
        low = house.ground + float(rng.uniform(0.2, 1.6))
        board = Look(Material.METAL, (0.3, 0.3, 0.3), draw_stain(rng))
        names = rng.choice(self.tiles.signs, (2, 1, 1))
        faces = {front.side(front.along): names[0], front.side(-front.along): names[1]}
        across, up = (along - 0.07, along + 0.07), (low, low + 0.8)
        front.box(self.quads, across, (0.15, 1.35), up, board, faces, bottom=True)
