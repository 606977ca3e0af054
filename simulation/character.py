"""The character of a city: the width of its streets, its houses, colours, trees and hills."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from vladmap.simulation.materials import Material

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Character:
    """The settings of `build_city`; the defaults are the sample city's. Lengths in metres."""

    road_half_width: float = 4.0
    pavement: float = 3.0
    pitch: tuple[float, float] = (74.0, 88.0)  # between the streets' centre lines, east and north
    lamp_spacing: float = 21.0
    lamp_height: float = 5.6
    house_depth: float = 11.0  # of a plot
    house_width: float = 10.5
    floors: tuple[int, int] = (2, 6)  # above the ground floor, upper bound excluded
    storey: tuple[float, float] = (2.9, 3.5)
    ground: tuple[float, float] = (3.7, 4.6)
    setbacks: tuple[float, ...] = (0.0, 0.0, 0.3, 0.7, 1.4)
    gap: float = 0.0  # left free on either side of a house
    vacancy: float = 0.0  # share of plots without a house
    designs: int = 0  # houses repeat so many designs; 0: each house has its own
    shops: float = 0.6  # share of houses
    chains: float = 0.0  # share of shops that belong to the chains that every city has
    roof_slope: float = 0.0  # rise over run; 0: flat
    roof_tints: tuple[Colour, ...] = ((0.34, 0.24, 0.2),)
    wall_tints: tuple[Colour, ...] = (
        (0.80, 0.74, 0.62), (0.72, 0.42, 0.32), (0.86, 0.80, 0.70), (0.62, 0.66, 0.70),
        (0.88, 0.74, 0.48), (0.66, 0.72, 0.62), (0.80, 0.60, 0.52), (0.92, 0.90, 0.86),
        (0.56, 0.50, 0.46), (0.74, 0.68, 0.76), (0.60, 0.34, 0.28), (0.90, 0.84, 0.60),
    )  # fmt: skip
    wall_materials: tuple[Material, ...] = (
        Material.BRICK, Material.BRICK, Material.ASHLAR, Material.PLASTER, Material.PLASTER,
        Material.PANELS, Material.BOARDS,
    )  # fmt: skip
    tint_spread: tuple[float, float] = (0.85, 1.05)
    grass: Colour = (0.42, 0.46, 0.32)
    yards: bool = False  # grass and hedges around the houses
    tree_spacing: float = 0.0  # along the streets; 0: none
    garden_trees: float = 0.0  # a plot, on average
    hills: float = 0.0  # height of the highest
    stains: float = 1.0  # how dirty surfaces are
    window_styles: int = 12
    window_variants: int = 9

    @property
    def street_half_width(self) -> float:
        return self.road_half_width + self.pavement


_KINDS = ("old town", "grid", "modern", "suburb", "country")
_SHARES = (0.2, 0.2, 0.15, 0.25, 0.2)


def draw_character(seed: int) -> Character:
    """The character of the world of a seed: an old town, a grid of tall blocks, modern estates, a
    suburb of detached houses or a country road, each with its own measures and palette."""
    rng = np.random.default_rng([seed, 21])
    kind = _KINDS[rng.choice(len(_KINDS), p=_SHARES)]

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def span(low: float, high: float, width: float) -> tuple[float, float]:
        start = between(low, high - width)
        return start, start + width

    common = {
        "pitch": (between(70.0, 96.0), between(70.0, 96.0)),
        "lamp_spacing": between(18.0, 34.0),
        "lamp_height": between(4.5, 8.0),
        "designs": int(rng.choice([0, 0, 2, 3, 5])),
        "chains": between(0.2, 0.6),
        "roof_tints": _roofs(rng),
        "wall_tints": _palette(rng),
        "tint_spread": (0.9, 1.08),
        "grass": _grass(rng),
        "hills": float(rng.choice([0.0, between(20.0, 80.0), between(60.0, 220.0)])),
        "stains": between(0.25, 0.8),
        "window_styles": 4,
        "window_variants": 6,
    }
    masonry = (Material.BRICK, Material.ASHLAR, Material.PLASTER, Material.PLASTER)
    if kind == "old town":
        low = int(rng.integers(1, 4))
        own = {
            "road_half_width": between(2.6, 3.8),
            "pavement": between(1.4, 2.4),
            "house_width": between(6.0, 9.0),
            "floors": (low, low + 3),
            "storey": span(2.6, 3.4, 0.4),
            "ground": span(3.0, 4.2, 0.6),
            "setbacks": (0.0, 0.0, 0.0, 0.3),
            "shops": between(0.3, 0.8),
            "roof_slope": between(0.6, 1.1),
            "wall_materials": _some(rng, masonry, 3),
            "tree_spacing": float(rng.choice([0.0, 0.0, 16.0])),
        }
    elif kind == "grid":
        low = int(rng.integers(3, 8))
        own = {
            "road_half_width": between(4.0, 6.5),
            "pavement": between(2.6, 5.0),
            "house_depth": 14.0,
            "house_width": between(11.0, 20.0),
            "floors": (low, low + 4),
            "storey": span(3.0, 3.8, 0.4),
            "ground": span(4.0, 5.2, 0.6),
            "shops": between(0.5, 0.9),
            "wall_materials": _some(rng, (*masonry, Material.PANELS), 3),
            "tree_spacing": float(rng.choice([0.0, between(9.0, 20.0)])),
        }
    elif kind == "modern":
        low = int(rng.integers(2, 10))
        own = {
            "road_half_width": between(4.0, 6.5),
            "pavement": between(2.6, 4.5),
            "house_depth": 16.0,
            "house_width": between(14.0, 26.0),
            "floors": (low, low + 5),
            "storey": span(2.8, 3.8, 0.3),
            "ground": span(3.4, 5.0, 0.6),
            "setbacks": (0.0, 2.0, 4.0),
            "gap": between(0.0, 4.0),
            "vacancy": between(0.05, 0.3),
            "shops": between(0.1, 0.5),
            "wall_materials": _some(rng, (Material.PANELS, Material.PLASTER, Material.METAL), 2),
            "yards": True,
            "tree_spacing": between(9.0, 24.0),
            "garden_trees": between(0.2, 1.2),
        }
    elif kind == "suburb":
        own = {
            "road_half_width": between(2.8, 4.6),
            "pavement": between(1.4, 2.6),
            "house_depth": 16.0,
            "house_width": between(12.0, 18.0),
            "floors": (0, 3) if rng.random() < 0.5 else (1, 2),
            "storey": span(2.5, 3.2, 0.3),
            "ground": span(2.7, 3.4, 0.4),
            "setbacks": tuple(between(2.0, 6.0) for _ in range(3)),
            "gap": between(1.0, 3.5),
            "vacancy": between(0.05, 0.3),
            "shops": between(0.0, 0.08),
            "roof_slope": between(0.35, 1.0),
            "wall_materials": _some(rng, (*masonry, Material.BOARDS, Material.BOARDS), 3),
            "yards": True,
            "tree_spacing": float(rng.choice([0.0, between(10.0, 26.0)])),
            "garden_trees": between(0.5, 1.8),
        }
    else:
        own = {
            "road_half_width": between(2.6, 3.8),
            "pavement": between(1.0, 2.0),
            "house_depth": 18.0,
            "house_width": between(14.0, 22.0),
            "lamp_spacing": between(40.0, 80.0),
            "floors": (0, 2),
            "storey": span(2.5, 3.2, 0.3),
            "ground": span(2.6, 3.6, 0.4),
            "setbacks": tuple(between(3.0, 8.0) for _ in range(3)),
            "gap": between(2.0, 5.0),
            "vacancy": between(0.55, 0.85),
            "shops": 0.03,
            "roof_slope": between(0.4, 1.1),
            "wall_materials": _some(rng, (*masonry, Material.BOARDS, Material.BOARDS), 3),
            "yards": True,
            "tree_spacing": float(rng.choice([0.0, between(8.0, 30.0)])),
            "garden_trees": between(0.6, 2.2),
            "hills": between(30.0, 220.0),
        }
    return Character(**{**common, **own})  # type: ignore[arg-type]


def _some(rng: np.random.Generator, values: tuple[Material, ...], count: int) -> tuple:
    return tuple(values[k] for k in rng.integers(len(values), size=count))


def _palette(rng: np.random.Generator) -> tuple[Colour, ...]:
    """Nine muted colours of two or three hues, some of them nearly grey."""
    hues = rng.choice([0.02, 0.05, 0.08, 0.1, 0.12, 0.15, 0.3, 0.57, 0.6], rng.integers(2, 4))
    lightness, most = rng.uniform(0.55, 0.85), rng.uniform(0.08, 0.45)
    return tuple(
        colorsys.hsv_to_rgb(
            float((rng.choice(hues) + rng.normal(0, 0.012)) % 1.0),
            float(rng.uniform(0.0, most)),
            float(np.clip(lightness + rng.normal(0, 0.12), 0.3, 0.95)),
        )
        for _ in range(9)
    )


def _roofs(rng: np.random.Generator) -> tuple[Colour, ...]:
    kinds: tuple[Colour, ...] = ((0.55, 0.29, 0.2), (0.34, 0.24, 0.2), (0.32, 0.33, 0.36))
    first = kinds[rng.integers(3)]
    factor = float(rng.uniform(0.85, 1.15))
    return first, (first[0] * factor, first[1] * factor, first[2] * factor), kinds[rng.integers(3)]


def _grass(rng: np.random.Generator) -> Colour:
    dry, fresh = np.array([0.56, 0.52, 0.33]), np.array([0.33, 0.45, 0.2])
    red, green, blue = dry + float(rng.uniform(0, 1)) * (fresh - dry)
    return float(red), float(green), float(blue)
