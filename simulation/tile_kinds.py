"""Tiles by kind: windows, doors, shops, signs, posters and road marks."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vladmap.simulation.brushes import (
    Canvas,
    band,
    choices,
    clutter,
    colours,
    draws,
    grain,
    noise_texture,
)

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


def paint_windows(rng: np.random.Generator, styles: int, variants: int) -> Tensor:
    """A style fixes the opening, frame and shutters; its variants have their own rooms behind."""
    count = styles * variants

    def styled(values: Tensor) -> Tensor:
        return values.repeat_interleave(variants, 0)

    half = styled(draws(rng, styles, 0.17, 0.3))
    low, high = styled(draws(rng, styles, 0.14, 0.26)), styled(draws(rng, styles, 0.76, 0.88))
    panes_s, panes_t = (
        styled(choices(rng, styles, (1, 2, 2, 3))),
        styled(choices(rng, styles, (1, 2, 3, 4))),
    )
    frame = styled(draws(rng, styles, 0.014, 0.03))
    frame_colour = styled(
        torch.where(
            choices(rng, styles, (0, 1, 1))[..., None] > 0,
            colours(rng, styles, 0.8, 0.95),
            colours(rng, styles, 0.08, 0.4),
        )
    )
    trim_colour = styled(colours(rng, styles, 0.0, 0.08) + draws(rng, styles, 0.5, 0.9)[..., None])
    trim = styled(choices(rng, styles, (0.0, 0.03, 0.05, 0.07)))
    has_shutters = styled(choices(rng, styles, (0, 0, 1)))
    shutter_colour = styled(colours(rng, styles, 0.12, 0.55))

    canvas = Canvas(count)
    s, t = canvas.s, canvas.t
    left, right = 0.5 - half, 0.5 + half
    canvas.rectangle(left - trim, right + trim, low - 0.5 * trim, high + 1.3 * trim, trim_colour)
    wing = half * 0.72
    slats = 0.75 + 0.25 * ((t * 40) % 1 > 0.35).float()
    for s0, s1 in ((left - wing, left - 0.006), (right + 0.006, right + wing)):
        mask = band(s, s0, s1) * band(t, low, high) * has_shutters
        canvas.fill(mask, shutter_colour * slats[None, ..., None])
    glass = colours(rng, count, 0.03, 0.1) + torch.tensor([0.03, 0.05, 0.09])
    gleam = (1 + 2.2 * ((t - low) / (high - low)).clamp(0, 1))[..., None]
    opening = band(s, left, right) * band(t, low, high)
    canvas.fill(opening, glass * gleam)
    clutter(rng, canvas, (left, right, low, low + 0.6 * (high - low)), 6, (0.05, 0.5))
    curtain_colour = colours(rng, count, 0.45, 0.9)
    drawn = draws(rng, count, -0.2, 0.75) * half
    folds = 0.82 + 0.18 * torch.sin(s * draws(rng, count, 70, 130))
    curtains = opening * ((s < left + drawn) | (s > right - drawn)).float()
    canvas.fill(curtains, curtain_colour * folds[..., None])
    blind = draws(rng, count, -0.6, 0.7)
    blinds = opening * band(t, high - blind * (high - low), high)
    lines = 0.7 + 0.3 * ((t * 55) % 1 > 0.3).float()
    canvas.fill(blinds, colours(rng, count, 0.5, 0.85) * lines[None, ..., None])
    across = (s - left) / (right - left) * panes_s
    upward = (t - low) / (high - low) * panes_t
    bars = (
        ((across - across.round()).abs() * (right - left) / panes_s < 0.5 * frame)
        | ((upward - upward.round()).abs() * (high - low) / panes_t < 0.5 * frame)
    ).float()
    canvas.fill(opening * bars, frame_colour)
    # The reveal's own shadow under the lintel and beside the left jamb gives the opening depth.
    canvas.shade(1 - 0.5 * opening * band(t, high - 0.035, high))
    canvas.shade(1 - 0.35 * opening * band(s, left, left + 0.02))
    sill = low - 0.035
    canvas.rectangle(left - 0.04, right + 0.04, sill, low, trim_colour * 1.05)
    canvas.rectangle(left - 0.03, right + 0.03, sill - 0.02, sill, trim_colour * 0.35)
    flowers = choices(rng, count, (0, 0, 0, 1))
    blossom = noise_texture(rng, s.shape[0], (64, 128), (1.0, 1.0))
    box = band(s, left, right) * band(t, low, low + 0.1 + 0.02 * blossom) * flowers
    green = torch.tensor([0.15, 0.33, 0.1]) * (1 + 0.3 * blossom[..., None])
    petals = (blossom > 0.8)[..., None].float()
    canvas.fill(box, green * (1 - petals) + petals * colours(rng, count, 0.2, 0.95))
    grain(rng, canvas, 0.05)
    return canvas.finish()


def paint_doors(rng: np.random.Generator, count: int) -> Tensor:
    canvas = Canvas(count)
    half = draws(rng, count, 0.13, 0.22)
    top = draws(rng, count, 0.58, 0.72)
    trim = colours(rng, count, 0.5, 0.8)
    wood = colours(rng, count, 0.08, 0.5)
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
    canvas.rectangle(0.5 + half * 0.02, 0.5 + half * 0.1, 0.3, 0.36, colours(rng, count, 0.7, 0.9))
    canvas.rectangle(
        0.5 - half, 0.5 + half, top + 0.02, top + 0.12, torch.tensor([0.12, 0.15, 0.2])
    )
    canvas.rectangle(0.3, 0.7, 0.0, 0.025, trim * 0.8)
    plates = colours(rng, count, 0.1, 0.9)
    canvas.rectangle(0.58 + half, 0.64 + half, 0.36, 0.44, plates)
    canvas.rectangle(0.58 + half, 0.62 + half, 0.46, 0.5, 1 - plates)
    grain(rng, canvas, 0.08)
    return canvas.finish()


def paint_shops(rng: np.random.Generator, count: int) -> Tensor:
    canvas = Canvas(count)
    frame = colours(rng, count, 0.06, 0.5)
    canvas.rectangle(0.02, 0.98, 0.0, 0.8, frame)
    base = draws(rng, count, 0.08, 0.2)
    split = draws(rng, count, 0.55, 0.68)
    top = 0.74
    canvas.rectangle(0.06, split, base, top, colours(rng, count, 0.1, 0.3))
    clutter(rng, canvas, (0.06, split, base, top), 22)
    canvas.rectangle(split + 0.04, 0.94, 0.02, top, colours(rng, count, 0.05, 0.2))
    clutter(rng, canvas, (split + 0.04, 0.94, 0.1, top), 8, (0.05, 0.6))
    mullions = choices(rng, count, (1, 2, 3))
    across = (canvas.s - 0.06) / (split - 0.06) * mullions
    bars = (
        ((across - across.round()).abs() < 0.03).float()
        * band(canvas.s, 0.06, split)
        * band(canvas.t, base, top)
    )
    canvas.fill(bars, frame)
    rail = draws(rng, count, 0.5, 0.66)
    canvas.rectangle(0.06, 0.94, rail, rail + 0.02, frame)
    canvas.shade(1 - 0.45 * band(canvas.t, top - 0.05, top))
    grain(rng, canvas, 0.05)
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


def paint_signs(rng: np.random.Generator, count: int) -> Tensor:
    canvas = Canvas(count)
    ground = colours(rng, count, 0.03, 0.95)
    ink = torch.where(
        ground.mean(-1, keepdim=True) > 0.5,
        colours(rng, count, 0.0, 0.25),
        colours(rng, count, 0.75, 1.0),
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
    grain(rng, canvas, 0.05)
    return canvas.finish()


def paint_posters(rng: np.random.Generator, count: int) -> Tensor:
    canvas = Canvas(count)
    size = canvas.s.shape[0]
    low, high = int(size * 0.76), int(size * 0.92)
    canvas.rectangle(0.0, 1.0, 0.0, 1.0, colours(rng, count, 0.15, 0.6))
    canvas.rectangle(0.06, 0.94, 0.08, 0.95, colours(rng, count, 0.2, 0.95))
    clutter(rng, canvas, (0.08, 0.92, 0.1, 0.75), 14)
    masks = torch.zeros((count, size, size))
    for mask in masks:
        mask[low:high, 10:-10] = _lettering(_name(rng).upper(), size - 20, high - low)
    canvas.fill(masks, colours(rng, count, 0.0, 0.3))
    grain(rng, canvas, 0.08)
    return canvas.finish()


def _worn(rng: np.random.Generator, canvas: Canvas, mask: Tensor, colour: Tensor) -> None:
    wear = noise_texture(rng, canvas.s.shape[0], (8, 32, 64, 128), (0.7, 1.0, 1.0, 0.6))
    canvas.fill(mask * (0.85 - 0.35 * (wear - 0.6).clamp(min=0)).clamp(0, 1), colour)


_ROAD_WHITE = torch.tensor([0.82, 0.82, 0.78])


def paint_dashes(rng: np.random.Generator, count: int) -> Tensor:
    canvas = Canvas(count)
    mask = band(canvas.s, 0.2, 0.8) * band(canvas.t, 0.97, 1.01)
    _worn(rng, canvas, mask.expand_as(canvas.cover), _ROAD_WHITE)
    return canvas.finish()


def paint_crossing(rng: np.random.Generator) -> Tensor:
    canvas = Canvas(1)
    mask = (((canvas.t * 4) % 1) < 0.5).float() * band(canvas.s, 0.1, 0.9)
    _worn(rng, canvas, mask[None], _ROAD_WHITE)
    return canvas.finish()


def paint_manholes(rng: np.random.Generator, count: int) -> Tensor:
    """Covers and patches of newer asphalt."""
    canvas = Canvas(count)
    left, low = draws(rng, count, 0.05, 0.45), draws(rng, count, 0.05, 0.45)
    right, high = left + draws(rng, count, 0.15, 0.5), low + draws(rng, count, 0.1, 0.4)
    patch = draws(rng, count, 0.16, 0.3)[..., None].expand(-1, -1, -1, 3)
    canvas.rectangle(left, right, low, high, patch)
    across, upward = (
        canvas.s - draws(rng, count, 0.3, 0.7),
        canvas.t - draws(rng, count, 0.3, 0.7),
    )
    radius = (across.square() + upward.square()).sqrt()
    canvas.fill((radius < 0.1).float(), torch.tensor([0.13, 0.13, 0.14]))
    ribs = (radius < 0.085) & (((across * 45) % 1 < 0.4) ^ ((upward * 45) % 1 < 0.4))
    canvas.fill(ribs.float(), torch.tensor([0.38, 0.37, 0.36]))
    grain(rng, canvas, 0.1)
    return canvas.finish()
