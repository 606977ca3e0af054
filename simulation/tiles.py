"""The tile array of a city: every window, door, sign and road mark that its surfaces show."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vladmap.simulation.brushes import TILE_SIZE, coordinates
from vladmap.simulation.textures import TextureArray
from vladmap.simulation.tile_kinds import (
    paint_crossing,
    paint_dashes,
    paint_doors,
    paint_manholes,
    paint_posters,
    paint_shops,
    paint_signs,
    paint_windows,
)

_CHAINS = 8


@dataclass(frozen=True)
class Tiles:
    """Where each kind of tile lies in the tile array; tile 0 is empty."""

    windows: tuple[tuple[int, ...], ...]  # by style, then variant
    doors: tuple[int, ...]
    shops: tuple[int, ...]
    signs: tuple[int, ...]  # 4:1 lettering
    posters: tuple[int, ...]
    dashes: tuple[int, ...]  # centre line along the tile's upper border
    crossing: int
    manholes: tuple[int, ...]
    chains: tuple[tuple[int, int], ...] = ()  # shop and sign of each chain


def paint_tiles(
    rng: np.random.Generator, styles: int = 12, variants: int = 9, *, chains: bool = False
) -> tuple[TextureArray, TextureArray, Tiles]:
    """The tile array of a city, where light comes through its tiles, and what lies where.

    Channels of the first: red, green, blue, cover; of the second, smaller one: the same light four
    times. `chains`: add the shops that all cities share.
    """
    layers: list[Tensor] = [torch.zeros((1, TILE_SIZE, TILE_SIZE, 4))]

    def add(images: Tensor) -> tuple[int, ...]:
        start = sum(len(layer) for layer in layers)
        layers.append(images)
        return tuple(range(start, start + len(images)))

    windows = add(paint_windows(rng, styles, variants))
    tiles = Tiles(
        windows=tuple(windows[i * variants : (i + 1) * variants] for i in range(styles)),
        doors=add(paint_doors(rng, 10)),
        shops=add(paint_shops(rng, 24)),
        signs=add(paint_signs(rng, 40)),
        posters=add(paint_posters(rng, 24)),
        dashes=add(paint_dashes(rng, 4)),
        crossing=add(paint_crossing(rng))[0],
        manholes=add(paint_manholes(rng, 6)),
    )
    if chains:
        shared = np.random.default_rng(20)
        shops, signs = add(paint_shops(shared, _CHAINS)), add(paint_signs(shared, _CHAINS))
        tiles = replace(tiles, chains=tuple(zip(shops, signs, strict=True)))
    images = torch.cat(layers)
    array = TextureArray.build(images, wraps=False)
    return array, TextureArray.build(_glass(images, tiles), wraps=False), tiles


def _glass(images: Tensor, tiles: Tiles) -> Tensor:
    """Where each tile lets light through, at a quarter of its size.

    A window's panes are what is painted within its frame: the middle of the tile, more of it where
    it is dark; shop windows and signs shine all over.
    """
    count, size = images.shape[0], TILE_SIZE // 4
    glass = torch.zeros((count, size, size))
    s, t = coordinates(size)
    dark = 1.0 - images[..., :3].mean(-1).view(count, size, 4, size, 4).mean((2, 4))
    cover = images[..., 3].view(count, size, 4, size, 4).mean((2, 4))
    pane = ((s - 0.5).abs() < 0.27) & (t > 0.2) & (t < 0.82)
    windows = [tile for style in tiles.windows for tile in style]
    glass[windows] = (cover * (0.35 + 0.65 * dark) * pane)[windows]
    display = (s > 0.05) & (s < 0.95) & (t > 0.1) & (t < 0.76)
    shops = [*tiles.shops, *(shop for shop, _ in tiles.chains)]
    glass[shops] = (cover * (0.5 + 0.5 * dark) * display)[shops]
    signs = [*tiles.signs, *(sign for _, sign in tiles.chains)]
    glass[signs] = 1.0
    return glass[..., None].repeat(1, 1, 1, 4)
