"""The city's geometry: textured quads, and the boxes and walls that are made of them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vladmap.simulation.materials import Material

Vector = NDArray[np.float64]
UP: Vector = np.array([0.0, 0.0, 1.0])

# The outward normals of an axis-aligned box.
EAST, WEST = np.array([1.0, 0.0, 0.0]), np.array([-1.0, 0.0, 0.0])
NORTH, SOUTH = np.array([0.0, 1.0, 0.0]), np.array([0.0, -1.0, 0.0])


def rightwards(normal: Vector) -> Vector:
    """UP x normal: the direction to the right along a wall, for a viewer in front of it."""
    return np.array([-normal[1], normal[0], 0.0])


@dataclass(frozen=True, eq=False)
class Quads:
    """Q rectangles in the city's east-north-up frame. They are seen from their front only."""

    corner: Tensor  # (Q, 3) float64 m, lower left seen from the front
    axis_u: Tensor  # (Q, 3) float64 unit, right; axis_u x axis_v is the outward normal
    axis_v: Tensor  # (Q, 3) float64 unit, up
    extent: Tensor  # (Q, 2) float32 m along u and v
    material: Tensor  # (Q,) int64
    tint: Tensor  # (Q, 3) float32, times the material
    stain_origin: Tensor  # (Q, 2) float32, where in the stains the corner lies, 0..1
    grid: Tensor  # (Q, 2) int64, columns and rows of tiles; (0, 0): no tiles
    first_tile: Tensor  # (Q,) int64, where its grid starts in `tiles`
    tiles: Tensor  # (T,) int64 tile ids, row by row from below
    glow: Tensor  # (Q,) float32 light of its own where lamps are lit, times the tint squared

    def __len__(self) -> int:
        return len(self.corner)

    def to(self, device: torch.device | str) -> Quads:
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def corners(self) -> Tensor:
        """(Q, 4, 3) float64 m, anticlockwise from the lower left as seen from the front."""
        u = self.axis_u * self.extent[:, :1]
        v = self.axis_v * self.extent[:, 1:]
        lower_right = self.corner + u
        return torch.stack([self.corner, lower_right, lower_right + v, self.corner + v], 1)

    def normal(self) -> Tensor:
        """(Q, 3) float64 unit."""
        return torch.linalg.cross(self.axis_u, self.axis_v)

    @classmethod
    def plain(
        cls,
        corner: Vector,
        axis_u: Vector,
        axis_v: Vector,
        extent: Vector,
        material: Material,
        tint: Vector,
    ) -> Quads:
        """Quads without tiles from arrays: (Q, 3), (Q, 3), (Q, 3), (Q, 2) and tints (Q, 3)."""
        count = len(corner)
        return cls(
            corner=torch.from_numpy(corner).double(),
            axis_u=torch.from_numpy(axis_u).double(),
            axis_v=torch.from_numpy(axis_v).double(),
            extent=torch.from_numpy(extent).float(),
            material=torch.full((count,), int(material)),
            tint=torch.from_numpy(tint).float(),
            stain_origin=torch.from_numpy(corner[:, :2] * 0.37 % 1.0).float(),
            grid=torch.zeros((count, 2), dtype=torch.int64),
            first_tile=torch.zeros(count, dtype=torch.int64),
            tiles=torch.zeros(0, dtype=torch.int64),
            glow=torch.zeros(count),
        )

    def join(self, *others: Quads) -> Quads:
        """These quads and then the others'; these keep their numbers."""
        parts = (self, *others)
        joined = {
            each.name: torch.cat([getattr(part, each.name) for part in parts])
            for each in fields(self)
        }
        starts = np.cumsum([0, *(len(part.tiles) for part in parts[:-1])])
        joined["first_tile"] = torch.cat(
            [part.first_tile + int(start) for part, start in zip(parts, starts, strict=True)]
        )
        return Quads(**joined)


@dataclass(frozen=True)
class Look:
    """What a surface is made of. `stain`: where in the stains its corner lies."""

    material: Material
    tint: tuple[float, float, float]
    stain: tuple[float, float] = (0.0, 0.0)
    glow: float = 0.0

    def shaded(self, factor: float) -> Look:
        red, green, blue = self.tint
        return replace(self, tint=(red * factor, green * factor, blue * factor))


@dataclass
class QuadBuilder:
    """Collects quads; `finish` turns them into tensors."""

    _rows: list[tuple[Vector, Vector, Vector, float, float, Look, int, int, int]] = field(
        default_factory=list
    )
    _tiles: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._rows)

    def quad(
        self,
        corner: Vector,
        u: Vector,
        v: Vector,
        width: float,
        height: float,
        look: Look,
        tiles: NDArray[np.int64] | None = None,
    ) -> None:
        """A rectangle; `tiles` (rows, columns), rows from below, are stretched over all of it."""
        if width <= 0 or height <= 0:
            return
        rows, columns = (0, 0) if tiles is None else tiles.shape
        start = len(self._tiles)
        if tiles is not None:
            self._tiles.extend(int(tile) for tile in tiles.ravel())
        self._rows.append((corner, u, v, width, height, look, columns, rows, start))

    def wall(
        self,
        foot: Vector,
        normal: Vector,
        width: float,
        height: float,
        look: Look,
        tiles: NDArray[np.int64] | None = None,
    ) -> None:
        """A vertical rectangle from its lower left corner, seen against `normal`."""
        self.quad(foot, rightwards(normal), UP, width, height, look, tiles)

    def box(
        self,
        low: Vector,
        high: Vector,
        look: Look,
        tiles: dict[str, NDArray[np.int64]] | None = None,
        *,
        top: bool = True,
        bottom: bool = False,
    ) -> None:
        """An axis-aligned box. `tiles` for some of its sides: east, west, north, south."""
        tiles = tiles or {}
        dx, dy, dz = (float(length) for length in high - low)
        x0, y0, z0 = low
        x1, y1, z1 = high
        self.wall(np.array([x1, y0, z0]), EAST, dy, dz, look, tiles.get("east"))
        self.wall(np.array([x0, y1, z0]), WEST, dy, dz, look, tiles.get("west"))
        self.wall(np.array([x1, y1, z0]), NORTH, dx, dz, look, tiles.get("north"))
        self.wall(np.array([x0, y0, z0]), SOUTH, dx, dz, look, tiles.get("south"))
        if top:
            self.quad(np.array([x0, y0, z1]), EAST, NORTH, dx, dy, look)
        if bottom:
            self.quad(np.array([x0, y1, z0]), EAST, SOUTH, dx, dy, look)

    def finish(self) -> Quads:
        corner, u, v, width, height, looks, columns, rows, start = zip(*self._rows, strict=True)
        return Quads(
            corner=torch.from_numpy(np.stack(corner)),
            axis_u=torch.from_numpy(np.stack(u)),
            axis_v=torch.from_numpy(np.stack(v)),
            extent=torch.tensor([width, height], dtype=torch.float32).T.contiguous(),
            material=torch.tensor([int(look.material) for look in looks]),
            tint=torch.tensor([look.tint for look in looks], dtype=torch.float32),
            stain_origin=torch.tensor([look.stain for look in looks], dtype=torch.float32),
            grid=torch.tensor([columns, rows]).T.contiguous(),
            first_tile=torch.tensor(start),
            tiles=torch.tensor(self._tiles, dtype=torch.int64),
            glow=torch.tensor([look.glow for look in looks]),
        )
