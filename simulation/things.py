"""Temporary objects: cars, people, scaffolding, and other changes of a city between visits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vladmap.simulation.city import KERB, City
from vladmap.simulation.frames import Frame
from vladmap.simulation.materials import Material
from vladmap.simulation.quads import EAST, NORTH, SOUTH, WEST, Look, QuadBuilder, Vector
from vladmap.simulation.tiles import Tiles
from vladmap.simulation.trees import grow
from vladmap.simulation.weather import Weather

_PAINTS = (
    (0.92, 0.92, 0.92), (0.12, 0.12, 0.13), (0.5, 0.51, 0.53), (0.7, 0.71, 0.73),
    (0.35, 0.36, 0.38), (0.55, 0.1, 0.1), (0.13, 0.2, 0.42), (0.3, 0.36, 0.28),
    (0.78, 0.7, 0.5), (0.9, 0.9, 0.88),
)  # fmt: skip
_GLASS = (0.12, 0.14, 0.17)
_SPACE = 6.2  # m of kerb a car
_PARKED = 0.3  # share of the kerb taken, at a traffic of 1
_MOVING = 0.015  # cars a space of lane
_PEOPLE = 0.05  # a metre of pavement, over 10
_SCAFFOLDS = 0.03  # share of the fronts
_CHANGED_POSTERS, _CHANGED_SIGNS, _CHANGED_SHOPS, _CHANGED_CURTAINS = 0.8, 0.2, 0.4, 0.3
_WITHERED = {"leaf": (1.0, 1.0, 1.0), "autumn": (1.06, 0.97, 0.85), "bare": (1.1, 0.92, 0.85)}
_ROOM_LIGHTS = np.array([[1.0, 0.72, 0.4], [1.0, 0.8, 0.55], [0.9, 0.95, 1.0], [0.5, 0.65, 1.0]])


def visit(
    city: City, weather: Weather, number: int, *, changes: float = 1.0, moving: bool = True
) -> City:
    """The city on its visit `number`: trees of the season, other cars and people, a scaffold here
    and there, posters, signs, displays and curtains changed, some windows lit.

    What the city's seed makes stays: its quads come first, in their order, and do not move.
    `changes`: how much of the usual change there is, 0 to 1. `moving`: whether there are cars in
    the lanes, too.
    """
    rng = np.random.default_rng([city.seed, 41, number])
    builder = QuadBuilder()
    _cars(builder, city, weather.traffic, rng, moving)
    _people(builder, city, weather.traffic, rng)
    _scaffolds(builder, city, rng)
    device = city.quads.corner.device
    added = [builder.finish()] if len(builder) else []
    trees = grow(city.trees, city.seed, weather.season, weather.fullness)
    added += [] if trees is None else [trees]
    own = city.quads
    grass = (own.material == int(Material.GRASS))[:, None]
    withered = own.tint.new_tensor(_WITHERED[weather.season]) * float(rng.uniform(0.9, 1.1))
    quads = replace(
        own,
        tiles=_changed(own.tiles, city.tile_kinds, rng, changes),
        tint=torch.where(grass, own.tint * withered, own.tint),
    )
    quads = quads.join(*(each.to(device) for each in added))
    lit = None
    if weather.light.lamps > 0:
        lit = _lit(quads.tiles, city.tile_kinds, weather.lit, rng)
    return replace(city, quads=quads, lit=lit)


def _lanes(city: City) -> list[tuple[Frame, float]]:
    """Both ways of every street: a frame on its centre line, `along` the way and `out` to the
    right of it, and the length."""
    pitch, (across, up) = city.character.pitch, city.blocks
    low = -np.array(pitch)
    high = (np.array(city.blocks) + 1.0) * pitch
    lanes = []
    for i in range(-1, across + 2):
        x, length = i * pitch[0], float(high[1] - low[1])
        lanes.append((Frame(np.array([x, low[1], 0.0]), EAST), length))
        lanes.append((Frame(np.array([x, high[1], 0.0]), WEST), length))
    for j in range(-1, up + 2):
        y, length = j * pitch[1], float(high[0] - low[0])
        lanes.append((Frame(np.array([low[0], y, 0.0]), SOUTH), length))
        lanes.append((Frame(np.array([high[0], y, 0.0]), NORTH), length))
    return lanes


def _cars(
    builder: QuadBuilder, city: City, traffic: float, rng: np.random.Generator, lanes: bool
) -> None:
    half = city.character.road_half_width
    kerbside = max(half - 1.0, 0.55 * half + 1.8)  # in narrow streets partly on the pavement
    for lane, length in _lanes(city):
        pitch = city.character.pitch[0 if abs(lane.along[0]) > 0.5 else 1]
        starts = np.arange(0.0, length - _SPACE, _SPACE)
        crossing = np.abs((starts + 0.5 * _SPACE + 0.5 * pitch) % pitch - 0.5 * pitch) < half + 6.0
        parked = (rng.random(len(starts)) < _PARKED * traffic) & ~crossing
        moving = lanes & (rng.random(len(starts)) < _MOVING * traffic)
        for start in starts[parked]:
            _car(builder, lane, float(start + rng.uniform(0, 1.5)), kerbside, rng)
        for start in starts[moving]:
            _car(builder, lane, float(start + rng.uniform(0, 1.5)), 0.45 * half, rng, beams=1.0)


def _car(
    builder: QuadBuilder,
    lane: Frame,
    start: float,
    middle: float,
    rng: np.random.Generator,
    beams: float = 0.0,
) -> None:
    van = rng.random() < 0.15
    length = float(rng.uniform(4.8, 5.6) if van else rng.uniform(3.6, 4.6))
    wide = float(rng.uniform(0.82, 0.92))
    waist = float(rng.uniform(0.85, 1.0))
    roof = float(rng.uniform(1.95, 2.4) if van else rng.uniform(1.38, 1.6))
    paint = np.array(_PAINTS[rng.integers(len(_PAINTS))]) * rng.uniform(0.85, 1.05)
    body = Look(Material.METAL, (float(paint[0]), float(paint[1]), float(paint[2])))
    glass, rubber = Look(Material.METAL, _GLASS), Look(Material.METAL, (0.09, 0.09, 0.1))

    def box(
        along: tuple[float, float],
        out: tuple[float, float],
        up: tuple[float, float],
        look: Look,
    ) -> None:
        shifted = (start + along[0], start + along[1]), (middle + out[0], middle + out[1])
        lane.box(builder, *shifted, up, look, bottom=False)

    hood = 0.9 if van else 0.26 * length
    box((0.0, length), (-wide, wide), (0.28, waist), body)
    cabin = (0.06 * length, length - hood)
    inner = wide - 0.1
    box(cabin, (-inner, inner), (waist, roof - 0.08), body if van else glass)
    box(
        (cabin[0] + 0.08, cabin[1] - 0.25), (-inner + 0.04, inner - 0.04), (roof - 0.08, roof), body
    )
    if van:
        box((cabin[1] - 0.9, cabin[1] + 0.02), (-inner - 0.01, inner + 0.01), (1.15, 1.75), glass)
    for axle in (0.17 * length, 0.8 * length):
        wheel = (axle - 0.31, axle + 0.31)
        box(wheel, (-wide - 0.02, wide + 0.02), (0.0, 0.6), rubber)
    head = Look(Material.METAL, (0.9, 0.9, 0.85), glow=5.0 * beams)
    tail = Look(Material.METAL, (0.7, 0.06, 0.05), glow=4.0 * beams)
    for side in (-1.0, 1.0):
        across = (min(side * 0.45, side * 0.75) * wide, max(side * 0.45, side * 0.75) * wide)
        box((length, length + 0.03), (across[0], across[1]), (0.58, 0.74), head)
        box((-0.03, 0.0), (across[0], across[1]), (0.62, 0.78), tail)


def _people(builder: QuadBuilder, city: City, traffic: float, rng: np.random.Generator) -> None:
    inner, outer = city.character.road_half_width, city.character.street_half_width
    busy = _PEOPLE * (0.25 if city.character.yards else 1.0)
    for lane, length in _lanes(city):
        for _ in range(rng.poisson(busy * traffic * length)):
            along = float(rng.uniform(0.0, length))
            out = float(rng.uniform(inner + 0.3, max(inner + 0.4, outer - 0.4)))
            _person(builder, Frame(lane.point(along, out, KERB), lane.out), rng)


def _person(builder: QuadBuilder, at: Frame, rng: np.random.Generator) -> None:
    size = float(rng.uniform(0.88, 1.08))
    coat, legs = (rng.uniform(0.08, 0.75, 3) for _ in range(2))
    coat = coat.mean() + 0.6 * (coat - coat.mean())
    looks = [
        Look(Material.PLASTER, (float(c[0]), float(c[1]), float(c[2])))
        for c in (0.6 * legs, coat, np.array([0.72, 0.56, 0.46]) * rng.uniform(0.5, 1.1))
    ]
    turned = rng.random() < 0.5
    for look, half, up in zip(
        looks,
        ((0.1, 0.16), (0.14, 0.25), (0.1, 0.09)),
        ((0.0, 0.85), (0.8, 1.45), (1.5, 1.74)),
        strict=True,
    ):
        a, b = half[::-1] if turned else half
        at.box(builder, (-a, a), (-b, b), (size * up[0], size * up[1]), look)


def _scaffolds(builder: QuadBuilder, city: City, rng: np.random.Generator) -> None:
    """Poles, planks and, over some of them, a net before a front."""
    for front in city.fronts[rng.random(len(city.fronts)) < _SCAFFOLDS]:
        width = float(np.linalg.norm(front[1] - front[0]))
        height = min(float(front[3, 2] - front[0, 2]), 14.0)
        along = (front[1] - front[0]) / width
        frame = Frame(front[0], _right_of(along))
        pole, plank = Look(Material.METAL, (0.6, 0.6, 0.6)), Look(Material.BOARDS, (0.6, 0.48, 0.3))
        for place in np.linspace(0.1, width - 0.1, max(2, round(width / 2.4))):
            for out in (0.5, 1.3):
                across = (float(place) - 0.04, float(place) + 0.04)
                frame.box(builder, across, (out - 0.04, out + 0.04), (0.0, height), pole)
        for up in np.arange(2.2, height, 2.0):
            level = (float(up), float(up) + 0.08)
            frame.box(builder, (0.0, width), (0.5, 1.3), level, plank, bottom=True)
            rail = (float(up) + 1.0, float(up) + 1.06)
            frame.box(builder, (0.0, width), (1.28, 1.34), rail, pole, bottom=True)
        if rng.random() < 0.5:
            green, blue = rng.uniform(0.3, 0.7, 2)
            net = Look(Material.BOARDS, (0.4, float(green), float(blue)))
            start = float(rng.uniform(0.0, 0.4) * width)
            spread = (start, start + 0.55 * width)
            frame.box(builder, spread, (1.36, 1.4), (2.0, height), net, bottom=True)


def _right_of(along: Vector) -> Vector:
    """The `out` of a frame whose `along` is given."""
    return np.array([along[1], -along[0], 0.0]).round()


def _changed(tiles: Tensor, kinds: Tiles, rng: np.random.Generator, changes: float) -> Tensor:
    """Tile ids with some posters, signs, displays and curtains replaced by others."""
    ids = tiles.cpu().numpy().copy()
    groups = [
        (kinds.posters, _CHANGED_POSTERS),
        (kinds.signs, _CHANGED_SIGNS),
        (kinds.shops, _CHANGED_SHOPS),
        *((style, _CHANGED_CURTAINS) for style in kinds.windows),
    ]
    for group, share in groups:
        places = np.flatnonzero(np.isin(ids, group))
        places = places[rng.random(len(places)) < share * changes]
        ids[places] = rng.choice(group, len(places))
    return torch.from_numpy(ids).to(tiles.device)


def _lit(tiles: Tensor, kinds: Tiles, share: float, rng: np.random.Generator) -> Tensor:
    """(T, 3) light behind each tile: rooms and shops, a share of them lit, and bright signs."""
    ids = tiles.cpu().numpy()
    lit = np.zeros((len(ids), 3))
    windows = [tile for style in kinds.windows for tile in style]
    shops = [*kinds.shops, *(shop for shop, _ in kinds.chains)]
    signs = [*kinds.signs, *(sign for _, sign in kinds.chains)]
    for group, likely, low, high in (
        (windows, share, 0.4, 2.4),
        (shops, min(1.0, 2.0 * share), 1.0, 3.5),
        (signs, 0.5, 0.4, 1.6),
    ):
        places = np.flatnonzero(np.isin(ids, group))
        places = places[rng.random(len(places)) < likely]
        colour = _ROOM_LIGHTS[rng.choice(4, len(places), p=[0.45, 0.3, 0.18, 0.07])]
        lit[places] = colour * rng.uniform(low, high, (len(places), 1))
    return torch.from_numpy(lit).float().to(tiles.device)
