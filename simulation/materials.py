"""Materials and stains of a city: textures that repeat over walls and ground."""

from __future__ import annotations

import enum

import numpy as np
import torch
from torch import Tensor

from vladmap.simulation.brushes import coordinates, noise_texture
from vladmap.simulation.textures import TextureArray

MATERIAL_SIZE = 256

STAIN_SIZE = 1024

MATERIAL_METRES = 4.0  # one repetition of a material

STAIN_METRES = 22.0  # one repetition of the stains: wider than any facade


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


def paint_materials(rng: np.random.Generator) -> TextureArray:
    """One layer a `Material`: red, green, blue, to be multiplied by 2 and by a tint."""
    s, t = coordinates(MATERIAL_SIZE)
    noise = [
        noise_texture(rng, MATERIAL_SIZE, (8, 32, 64, 128), (0.6, 0.8, 1.0, 0.9)) for _ in Material
    ]
    fine = [noise_texture(rng, MATERIAL_SIZE, (64, 128, 256), (0.8, 1.0, 0.7)) for _ in Material]
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
    shared = noise_texture(rng, STAIN_SIZE, octaves, weights)
    # Specks: chips, bolts, leaves. Rare and strong, they are what corner detectors find again.
    specks = noise_texture(rng, STAIN_SIZE, (128, 256), (1.0, 1.0))
    shared = shared - 1.5 * (specks - 1.7).clamp(min=0) + 1.2 * (-specks - 1.9).clamp(min=0)
    hues = [
        noise_texture(rng, STAIN_SIZE, (5, 17, 43, 120), (1.0, 0.8, 0.6, 0.4)) for _ in range(3)
    ]
    channels = [0.5 + 0.095 * strength * shared + 0.014 * strength * hue for hue in hues]
    clouds = noise_texture(
        rng, STAIN_SIZE, (4, 8, 16, 32, 64, 128), (1.0, 0.9, 0.55, 0.33, 0.2, 0.12)
    )
    channels.append(0.5 + 0.2 * clouds)
    return TextureArray.build(torch.stack(channels, -1)[None].clamp(0, 1), wraps=True)


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
