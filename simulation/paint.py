"""Paints what a city is clad in: tiles (windows, doors, signs, road marks), materials and stains.

Everything is a colour in 0..1 over texture coordinates s (right) and t (up), painted for all tiles
of a kind at once; the tiles of one city come from its seed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vladmap.simulation.textures import TextureArray, fractal_noise

TILE_SIZE = 128
MATERIAL_SIZE = 256
STAIN_SIZE = 1024
MATERIAL_METRES = 4.0  # one repetition of a material
_CHAINS = 8
STAIN_METRES = 22.0  # one repetition of the stains: wider than any facade

_SYLLABLES = ("ba", "co", "da", "fe", "gi", "ka", "lo", "mi", "no", "pe", "ri", "sa", "to", "vu")
_TRADES = (
    "BAR",
    "CAFE",
    "HOTEL",
    "BOOKS",
    "BAKERY",
    "PHARMACY",
    "OPTIC",
    "MARKET",
    "BANK",
    "SHOES",
)


class Material(enum.IntEnum):
    """Layers of the material array."""

    BRICK = 0
    ASHLAR = 1
    PLASTER = 2
    PANELS = 3
    BOARDS = 4
    PAVING = 5
    ASPHALT = 6
    METAL = 7
    GRASS = 8


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

    windows = add(_windows(rng, styles, variants))
    tiles = Tiles(
        windows=tuple(windows[i * variants : (i + 1) * variants] for i in range(styles)),
        doors=add(_doors(rng, 10)),
        shops=add(_shops(rng, 24)),
        signs=add(_signs(rng, 40)),
        posters=add(_posters(rng, 24)),
        dashes=add(_dashes(rng, 4)),
        crossing=add(_crossing(rng))[0],
        manholes=add(_manholes(rng, 6)),
    )
    if chains:
        shared = np.random.default_rng(20)
        shops, signs = add(_shops(shared, _CHAINS)), add(_signs(shared, _CHAINS))
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
    s, t = _coordinates(size)
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


def paint_materials(rng: np.random.Generator) -> TextureArray:
    """One layer a `Material`: red, green, blue, to be multiplied by 2 and by a tint."""
    s, t = _coordinates(MATERIAL_SIZE)
    noise = [_noise(rng, MATERIAL_SIZE, (8, 32, 64, 128), (0.6, 0.8, 1.0, 0.9)) for _ in Material]
    fine = [_noise(rng, MATERIAL_SIZE, (64, 128, 256), (0.8, 1.0, 0.7)) for _ in Material]
    grey: dict[Material, Tensor] = {
        Material.BRICK: _courses(
            rng, s, t, rows=48, columns=16, joint=0.14, spread=0.16, offset=0.5
        ),
        Material.ASHLAR: _courses(
            rng, s, t, rows=10, columns=5, joint=0.05, spread=0.07, offset=0.5
        ),
        Material.PLASTER: torch.full_like(s, 0.5),
        Material.PANELS: _courses(
            rng, s, t, rows=4, columns=4, joint=0.02, spread=0.04, offset=0.0
        ),
        Material.BOARDS: _courses(
            rng, s, t, rows=28, columns=2, joint=0.12, spread=0.08, offset=0.3
        ),
        Material.PAVING: _courses(
            rng, s, t, rows=8, columns=8, joint=0.05, spread=0.09, offset=0.5
        ),
        Material.ASPHALT: torch.full_like(s, 0.5),
        Material.METAL: torch.full_like(s, 0.5),
        Material.GRASS: torch.full_like(s, 0.5),
    }
    rough = {Material.ASPHALT: 0.075, Material.METAL: 0.02, Material.GRASS: 0.09}
    images = []
    for material in Material:
        amount = rough.get(material, 0.035)
        value = grey[material] + amount * noise[material] + 0.6 * amount * fine[material]
        images.append(torch.stack([value, value, value, torch.ones_like(value)], -1))
    return TextureArray.build(torch.stack(images), wraps=True)


def paint_stains(rng: np.random.Generator, strength: float = 1.0) -> TextureArray:
    """One layer: dirt in red, green and blue, around 0.5, to multiply colours; clouds in alpha."""
    octaves = (4, 11, 29, 64, 128, 256, 512)
    weights = (0.45, 0.5, 0.6, 0.9, 1.0, 0.9, 0.6)
    shared = _noise(rng, STAIN_SIZE, octaves, weights)
    # Specks: chips, bolts, leaves. Rare and strong, they are what corner detectors find again.
    specks = _noise(rng, STAIN_SIZE, (128, 256), (1.0, 1.0))
    shared = shared - 1.5 * (specks - 1.7).clamp(min=0) + 1.2 * (-specks - 1.9).clamp(min=0)
    hues = [_noise(rng, STAIN_SIZE, (5, 17, 43, 120), (1.0, 0.8, 0.6, 0.4)) for _ in range(3)]
    channels = [0.5 + 0.095 * strength * shared + 0.014 * strength * hue for hue in hues]
    clouds = _noise(rng, STAIN_SIZE, (4, 8, 16, 32, 64, 128), (1.0, 0.9, 0.55, 0.33, 0.2, 0.12))
    channels.append(0.5 + 0.2 * clouds)
    return TextureArray.build(torch.stack(channels, -1)[None].clamp(0, 1), wraps=True)


# --- helpers -----------------------------------------------------------------------------------


def _coordinates(size: int) -> tuple[Tensor, Tensor]:
    centres = (torch.arange(size, dtype=torch.float32) + 0.5) / size
    t, s = torch.meshgrid(centres, centres, indexing="ij")
    return s.contiguous(), t.contiguous()


def _noise(
    rng: np.random.Generator, size: int, cells: tuple[int, ...], weights: tuple[float, ...]
) -> Tensor:
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    return fractal_noise(size, cells, weights, generator)


def _column(rng: np.random.Generator, count: int, low: float, high: float) -> Tensor:
    """(count, 1, 1) uniform draws: one parameter of `count` tiles."""
    return torch.from_numpy(rng.uniform(low, high, (count, 1, 1)).astype(np.float32))


def _choice(rng: np.random.Generator, count: int, values: tuple[float, ...]) -> Tensor:
    return torch.from_numpy(rng.choice(np.array(values, np.float32), (count, 1, 1)))


def _colours(rng: np.random.Generator, count: int, low: float, high: float) -> Tensor:
    """(count, 1, 1, 3) colours, muted as things outdoors are."""
    vivid = torch.from_numpy(rng.uniform(low, high, (count, 1, 1, 3)).astype(np.float32))
    return torch.lerp(vivid.mean(-1, keepdim=True), vivid, 0.6)


def _band(x: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """1 from `low` to `high`, with borders one texel soft."""
    return torch.minimum(x - low, high - x).mul_(TILE_SIZE).add_(0.5).clamp_(0.0, 1.0)


class _Canvas:
    """`count` tiles painted together."""

    def __init__(self, count: int) -> None:
        self.s, self.t = _coordinates(TILE_SIZE)
        self.colour = torch.zeros((count, *self.s.shape, 3))
        self.cover = torch.zeros((count, *self.s.shape))

    def fill(self, mask: Tensor, colour: Tensor) -> None:
        """Paint `colour` (count, 1 or S, 1 or S, 3) where mask (count, S, S) is 1."""
        opaque = torch.where(self.cover > 0, mask, (mask > 0).float())
        self.colour = torch.lerp(self.colour, colour.expand_as(self.colour), opaque[..., None])
        self.cover = torch.maximum(self.cover, mask.expand_as(self.cover))

    def shade(self, factor: Tensor) -> None:
        self.colour = self.colour * factor[..., None]

    def rectangle(
        self,
        s0: Tensor | float,
        s1: Tensor | float,
        t0: Tensor | float,
        t1: Tensor | float,
        colour: Tensor,
    ) -> Tensor:
        mask = _band(self.s, s0, s1) * _band(self.t, t0, t1)
        self.fill(mask.expand_as(self.cover), colour)
        return mask

    def finish(self) -> Tensor:
        """(count, S, S, 4): red, green, blue, cover."""
        return torch.cat([self.colour, self.cover[..., None]], -1)


def _grain(rng: np.random.Generator, canvas: _Canvas, amount: float) -> None:
    size = canvas.s.shape[0]
    noise = _noise(rng, size, (16, 32, 64), (1.0, 1.0, 0.7))
    shifts = rng.integers(0, size, (canvas.cover.shape[0], 2))
    rolled = torch.stack([noise.roll((int(a), int(b)), (0, 1)) for a, b in shifts])
    canvas.shade(1 + amount * rolled)


def _clutter(
    rng: np.random.Generator,
    canvas: _Canvas,
    region: tuple[Tensor | float, Tensor | float, Tensor | float, Tensor | float],
    things: int,
    bright: tuple[float, float] = (0.05, 0.95),
) -> None:
    """Random rectangles inside a region (s0, s1, t0, t1): goods in a shop, things in a room."""
    count = canvas.cover.shape[0]
    s0, s1, t0, t1 = region
    for _ in range(things):
        width, height = _column(rng, count, 0.04, 0.2), _column(rng, count, 0.04, 0.22)
        left = s0 + _column(rng, count, 0.0, 0.9) * (s1 - s0)
        low = t0 + _column(rng, count, 0.0, 0.9) * (t1 - t0)
        right, high = left + width * (s1 - s0), low + height * (t1 - t0)
        colour = _colours(rng, count, *bright)
        canvas.rectangle(left, _least(right, s1), low, _least(high, t1), colour)


def _least(a: Tensor, b: Tensor | float) -> Tensor:
    return torch.minimum(a, torch.as_tensor(b, dtype=a.dtype))


# --- kinds of tiles ----------------------------------------------------------------------------


def _windows(rng: np.random.Generator, styles: int, variants: int) -> Tensor:
    """A style fixes the opening, frame and shutters; its variants have their own rooms behind."""
    count = styles * variants

    def styled(values: Tensor) -> Tensor:
        return values.repeat_interleave(variants, 0)

    half = styled(_column(rng, styles, 0.17, 0.3))
    low, high = styled(_column(rng, styles, 0.14, 0.26)), styled(_column(rng, styles, 0.76, 0.88))
    panes_s, panes_t = (
        styled(_choice(rng, styles, (1, 2, 2, 3))),
        styled(_choice(rng, styles, (1, 2, 3, 4))),
    )
    frame = styled(_column(rng, styles, 0.014, 0.03))
    frame_colour = styled(
        torch.where(
            _choice(rng, styles, (0, 1, 1))[..., None] > 0,
            _colours(rng, styles, 0.8, 0.95),
            _colours(rng, styles, 0.08, 0.4),
        )
    )
    trim_colour = styled(
        _colours(rng, styles, 0.0, 0.08) + _column(rng, styles, 0.5, 0.9)[..., None]
    )
    trim = styled(_choice(rng, styles, (0.0, 0.03, 0.05, 0.07)))
    has_shutters = styled(_choice(rng, styles, (0, 0, 1)))
    shutter_colour = styled(_colours(rng, styles, 0.12, 0.55))

    canvas = _Canvas(count)
    s, t = canvas.s, canvas.t
    left, right = 0.5 - half, 0.5 + half
    canvas.rectangle(left - trim, right + trim, low - 0.5 * trim, high + 1.3 * trim, trim_colour)
    wing = half * 0.72
    slats = 0.75 + 0.25 * ((t * 40) % 1 > 0.35).float()
    for s0, s1 in ((left - wing, left - 0.006), (right + 0.006, right + wing)):
        mask = _band(s, s0, s1) * _band(t, low, high) * has_shutters
        canvas.fill(mask, shutter_colour * slats[None, ..., None])
    glass = _colours(rng, count, 0.03, 0.1) + torch.tensor([0.03, 0.05, 0.09])
    gleam = (1 + 2.2 * ((t - low) / (high - low)).clamp(0, 1))[..., None]
    opening = _band(s, left, right) * _band(t, low, high)
    canvas.fill(opening, glass * gleam)
    _clutter(rng, canvas, (left, right, low, low + 0.6 * (high - low)), 6, (0.05, 0.5))
    curtain_colour = _colours(rng, count, 0.45, 0.9)
    drawn = _column(rng, count, -0.2, 0.75) * half
    folds = 0.82 + 0.18 * torch.sin(s * _column(rng, count, 70, 130))
    curtains = opening * ((s < left + drawn) | (s > right - drawn)).float()
    canvas.fill(curtains, curtain_colour * folds[..., None])
    blind = _column(rng, count, -0.6, 0.7)
    blinds = opening * _band(t, high - blind * (high - low), high)
    lines = 0.7 + 0.3 * ((t * 55) % 1 > 0.3).float()
    canvas.fill(blinds, _colours(rng, count, 0.5, 0.85) * lines[None, ..., None])
    across = (s - left) / (right - left) * panes_s
    upward = (t - low) / (high - low) * panes_t
    bars = (
        ((across - across.round()).abs() * (right - left) / panes_s < 0.5 * frame)
        | ((upward - upward.round()).abs() * (high - low) / panes_t < 0.5 * frame)
    ).float()
    canvas.fill(opening * bars, frame_colour)
    # The reveal's own shadow under the lintel and beside the left jamb gives the opening depth.
    canvas.shade(1 - 0.5 * opening * _band(t, high - 0.035, high))
    canvas.shade(1 - 0.35 * opening * _band(s, left, left + 0.02))
    sill = low - 0.035
    canvas.rectangle(left - 0.04, right + 0.04, sill, low, trim_colour * 1.05)
    canvas.rectangle(left - 0.03, right + 0.03, sill - 0.02, sill, trim_colour * 0.35)
    flowers = _choice(rng, count, (0, 0, 0, 1))
    blossom = _noise(rng, s.shape[0], (64, 128), (1.0, 1.0))
    box = _band(s, left, right) * _band(t, low, low + 0.1 + 0.02 * blossom) * flowers
    green = torch.tensor([0.15, 0.33, 0.1]) * (1 + 0.3 * blossom[..., None])
    petals = (blossom > 0.8)[..., None].float()
    canvas.fill(box, green * (1 - petals) + petals * _colours(rng, count, 0.2, 0.95))
    _grain(rng, canvas, 0.05)
    return canvas.finish()


def _doors(rng: np.random.Generator, count: int) -> Tensor:
    canvas = _Canvas(count)
    half = _column(rng, count, 0.13, 0.22)
    top = _column(rng, count, 0.58, 0.72)
    trim = _colours(rng, count, 0.5, 0.8)
    wood = _colours(rng, count, 0.08, 0.5)
    canvas.rectangle(0.46 - half, 0.54 + half, 0.0, top + 0.18, trim)
    canvas.rectangle(0.48 - half, 0.52 + half, 0.02, top + 0.14, wood * 0.35)
    canvas.rectangle(0.5 - half, 0.5 + half, 0.0, top, wood)
    for row in range(3):
        for side in (-1.0, 1.0):
            centre = 0.5 + side * half * 0.5
            low = 0.06 + row * (top - 0.06) / 3
            high = low + (top - 0.06) / 3 - 0.04
            canvas.rectangle(centre - half * 0.36, centre + half * 0.36, low, high, wood * 0.62)
            canvas.rectangle(
                centre - half * 0.3, centre + half * 0.36, low, high - 0.012, wood * 1.2
            )
    canvas.rectangle(0.5 + half * 0.02, 0.5 + half * 0.1, 0.3, 0.36, _colours(rng, count, 0.7, 0.9))
    canvas.rectangle(
        0.5 - half, 0.5 + half, top + 0.02, top + 0.12, torch.tensor([0.12, 0.15, 0.2])
    )
    canvas.rectangle(0.3, 0.7, 0.0, 0.025, trim * 0.8)
    plates = _colours(rng, count, 0.1, 0.9)
    canvas.rectangle(0.58 + half, 0.64 + half, 0.36, 0.44, plates)
    canvas.rectangle(0.58 + half, 0.62 + half, 0.46, 0.5, 1 - plates)
    _grain(rng, canvas, 0.08)
    return canvas.finish()


def _shops(rng: np.random.Generator, count: int) -> Tensor:
    canvas = _Canvas(count)
    frame = _colours(rng, count, 0.06, 0.5)
    canvas.rectangle(0.02, 0.98, 0.0, 0.8, frame)
    base = _column(rng, count, 0.08, 0.2)
    split = _column(rng, count, 0.55, 0.68)
    top = 0.74
    canvas.rectangle(0.06, split, base, top, _colours(rng, count, 0.1, 0.3))
    _clutter(rng, canvas, (0.06, split, base, top), 22)
    canvas.rectangle(split + 0.04, 0.94, 0.02, top, _colours(rng, count, 0.05, 0.2))
    _clutter(rng, canvas, (split + 0.04, 0.94, 0.1, top), 8, (0.05, 0.6))
    mullions = _choice(rng, count, (1, 2, 3))
    across = (canvas.s - 0.06) / (split - 0.06) * mullions
    bars = (
        ((across - across.round()).abs() < 0.03).float()
        * _band(canvas.s, 0.06, split)
        * _band(canvas.t, base, top)
    )
    canvas.fill(bars, frame)
    rail = _column(rng, count, 0.5, 0.66)
    canvas.rectangle(0.06, 0.94, rail, rail + 0.02, frame)
    canvas.shade(1 - 0.45 * _band(canvas.t, top - 0.05, top))
    _grain(rng, canvas, 0.05)
    return canvas.finish()


def _lettering(text: str, width: int, height: int) -> Tensor:
    """(height, width) mask of text that fills the given area, rows from the bottom."""
    font = ImageFont.load_default(size=64)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    image = Image.new("L", (right - left + 8, bottom - top + 8), 0)
    ImageDraw.Draw(image).text((4 - left, 4 - top), text, fill=255, font=font)
    resized = image.resize((width, height), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(resized).copy()).flip(0).float() / 255


def _name(rng: np.random.Generator) -> str:
    return "".join(rng.choice(_SYLLABLES, int(rng.integers(2, 4)))).capitalize()


def _signs(rng: np.random.Generator, count: int) -> Tensor:
    canvas = _Canvas(count)
    ground = _colours(rng, count, 0.03, 0.95)
    ink = torch.where(
        ground.mean(-1, keepdim=True) > 0.5,
        _colours(rng, count, 0.0, 0.25),
        _colours(rng, count, 0.75, 1.0),
    )
    size = canvas.s.shape[0]
    margin = size // 6
    canvas.rectangle(0.0, 1.0, 0.0, 1.0, ink)
    canvas.rectangle(0.012, 0.988, 0.05, 0.95, ground)
    masks = torch.zeros((count, size, size))
    for mask in masks:
        text = f"{_name(rng)} {rng.choice(_TRADES)}"
        mask[margin:-margin, 5:-5] = _lettering(text, size - 10, size - 2 * margin)
    canvas.fill(masks, ink)
    _grain(rng, canvas, 0.05)
    return canvas.finish()


def _posters(rng: np.random.Generator, count: int) -> Tensor:
    canvas = _Canvas(count)
    size = canvas.s.shape[0]
    low, high = int(size * 0.76), int(size * 0.92)
    canvas.rectangle(0.0, 1.0, 0.0, 1.0, _colours(rng, count, 0.15, 0.6))
    canvas.rectangle(0.06, 0.94, 0.08, 0.95, _colours(rng, count, 0.2, 0.95))
    _clutter(rng, canvas, (0.08, 0.92, 0.1, 0.75), 14)
    masks = torch.zeros((count, size, size))
    for mask in masks:
        mask[low:high, 10:-10] = _lettering(_name(rng).upper(), size - 20, high - low)
    canvas.fill(masks, _colours(rng, count, 0.0, 0.3))
    _grain(rng, canvas, 0.08)
    return canvas.finish()


def _worn(rng: np.random.Generator, canvas: _Canvas, mask: Tensor, colour: Tensor) -> None:
    wear = _noise(rng, canvas.s.shape[0], (8, 32, 64, 128), (0.7, 1.0, 1.0, 0.6))
    canvas.fill(mask * (0.85 - 0.35 * (wear - 0.6).clamp(min=0)).clamp(0, 1), colour)


_ROAD_WHITE = torch.tensor([0.82, 0.82, 0.78])


def _dashes(rng: np.random.Generator, count: int) -> Tensor:
    canvas = _Canvas(count)
    mask = _band(canvas.s, 0.2, 0.8) * _band(canvas.t, 0.97, 1.01)
    _worn(rng, canvas, mask.expand_as(canvas.cover), _ROAD_WHITE)
    return canvas.finish()


def _crossing(rng: np.random.Generator) -> Tensor:
    canvas = _Canvas(1)
    mask = (((canvas.t * 4) % 1) < 0.5).float() * _band(canvas.s, 0.1, 0.9)
    _worn(rng, canvas, mask[None], _ROAD_WHITE)
    return canvas.finish()


def _manholes(rng: np.random.Generator, count: int) -> Tensor:
    """Covers and patches of newer asphalt."""
    canvas = _Canvas(count)
    left, low = _column(rng, count, 0.05, 0.45), _column(rng, count, 0.05, 0.45)
    right, high = left + _column(rng, count, 0.15, 0.5), low + _column(rng, count, 0.1, 0.4)
    patch = _column(rng, count, 0.16, 0.3)[..., None].expand(-1, -1, -1, 3)
    canvas.rectangle(left, right, low, high, patch)
    across, upward = (
        canvas.s - _column(rng, count, 0.3, 0.7),
        canvas.t - _column(rng, count, 0.3, 0.7),
    )
    radius = (across.square() + upward.square()).sqrt()
    canvas.fill((radius < 0.1).float(), torch.tensor([0.13, 0.13, 0.14]))
    ribs = (radius < 0.085) & (((across * 45) % 1 < 0.4) ^ ((upward * 45) % 1 < 0.4))
    canvas.fill(ribs.float(), torch.tensor([0.38, 0.37, 0.36]))
    _grain(rng, canvas, 0.1)
    return canvas.finish()


def _courses(
    rng: np.random.Generator,
    s: Tensor,
    t: Tensor,
    *,
    rows: int,
    columns: int,
    joint: float,
    spread: float,
    offset: float,
) -> Tensor:
    """Masonry: rows of blocks, each its own grey, with darker joints. `joint`: share of a row."""
    row = (t * rows).floor()
    shifted = s * columns + offset * (row % 2)
    column = shifted.floor() % columns
    greys = torch.from_numpy(rng.normal(0.5, spread * 0.5, (rows, columns)).astype(np.float32))
    value = greys[row.long(), column.long()]
    joint_columns = joint * columns / rows
    in_joint = ((t * rows) % 1 < joint) | (shifted % 1 < joint_columns)
    lit_edge = ((t * rows) % 1 > 1 - 0.5 * joint) & ~in_joint
    value = value + 0.06 * lit_edge.float()
    return torch.where(in_joint, torch.full_like(value, 0.36), value)
