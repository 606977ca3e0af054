"""Drives along the streets of a city, both ways, and the same drives on another day."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vladmap.simulation.camera import Array, Camera, Poses
from vladmap.simulation.character import Character

SPACING = 5.0  # m between the database's photographs
_END = 9.0  # m from where a street ends


@dataclass(frozen=True, eq=False)
class Stretches:
    """S stretches of street, each driven one way. Metres; degrees clockwise from north."""

    start: Array  # (S, 2) on the centre line
    heading: Array  # (S,) of the street
    length: Array  # (S,)
    view: Array  # (S,) how far to the right of the street the camera looks
    half_width: float  # of the road

    def distance(self, places: Array) -> Array:
        """(N,) metres from (N, 2) places to the nearest stretch's centre line."""
        apart = places[:, None] - self.start
        ahead = _direction(self.heading)
        along = np.clip((apart * ahead).sum(-1), 0.0, self.length)
        return np.linalg.norm(apart - along[..., None] * ahead, axis=-1).min(1)

    def places(self, count: int, rng: np.random.Generator | None = None) -> tuple[Array, Array]:
        """`count` places spread over all stretches in proportion to length: stretch and metres
        along it. Evenly, or, with `rng`, each anywhere in its share."""
        ends = np.cumsum(self.length)
        share = ends[-1] / count
        within = 0.5 if rng is None else rng.uniform(0.0, 1.0, count)
        along = (np.arange(count) + within) * share
        stretch = np.searchsorted(ends, along, side="right").clip(max=len(ends) - 1)
        return stretch, along - (ends - self.length)[stretch]


def blocks_for(places: int, character: Character) -> tuple[int, int]:
    """How many blocks a city needs for `places` photographs on its inner streets."""
    blocks = (1, 1)
    while 2 * sum(length for *_, length in _streets(blocks, character)) < SPACING * places:
        blocks = (
            (blocks[0] + 1, blocks[1]) if blocks[0] <= blocks[1] else (blocks[0], blocks[1] + 1)
        )
    return blocks


def draw_stretches(
    blocks: tuple[int, int], character: Character, places: int, rng: np.random.Generator
) -> Stretches:
    """A stretch of every inner street, both ways, long enough together for `places`."""
    streets = _streets(blocks, character)
    wanted = SPACING * places / (2 * len(streets))
    shortest = min(length for *_, length in streets)
    rows = []
    for x, y, heading, length in streets:
        # Where one street is too short for its share, all are taken whole.
        part = min(length, wanted) if wanted <= shortest else length
        first = float(rng.uniform(0.0, length - part))
        ahead = _direction(heading)
        low = np.array([x, y]) + first * ahead
        for start, turn in ((low, 0.0), (low + part * ahead, 180.0)):
            aside = rng.uniform(25.0, 70.0) * rng.choice([-1.0, 1.0])
            view = aside if rng.random() < 0.3 else 0.0
            rows.append((*start, heading + turn, part, view))
    start_x, start_y, heading, length, view = np.array(rows).T
    start = np.stack([start_x, start_y], 1)
    return Stretches(start, heading, length, view, character.road_half_width)


def _streets(
    blocks: tuple[int, int], character: Character
) -> list[tuple[float, float, float, float]]:
    """The inner streets: start (x, y), heading and length."""
    pitch = character.pitch
    east, north = ((blocks[k] + 2) * pitch[k] - 2 * _END for k in (0, 1))
    low = _END - np.array(pitch)
    upward = [(i * pitch[0], float(low[1]), 0.0, north) for i in range(blocks[0] + 1)]
    across = [(float(low[0]), j * pitch[1], 90.0, east) for j in range(blocks[1] + 1)]
    return upward + across


@dataclass(frozen=True)
class Rig:
    """A camera on a car, and how it moves: standard deviations in metres and degrees."""

    field_deg: float  # horizontal field of view
    height: float
    pitch_deg: float
    roll_deg: float
    turn_deg: float  # the whole drive looks so far aside
    lane: float  # share of the half width, to the right of the centre line
    sway: float
    unrest_deg: float


def draw_rig(rng: np.random.Generator, first: Rig | None = None, *, shifted: bool = False) -> Rig:
    """A rig for the first drive, or for a later one that looks at what the first one saw.

    shifted: from another lane or the pavement, up to 30 degrees aside, with another field of view
    and from another height.
    """
    if first is None:
        return Rig(
            field_deg=float(rng.uniform(58.0, 85.0)),
            height=float(rng.uniform(1.5, 2.6)),
            pitch_deg=float(rng.uniform(0.0, 6.0)),
            roll_deg=float(rng.normal(0.0, 0.7)),
            turn_deg=0.0,
            lane=float(rng.uniform(0.35, 0.55)),
            sway=0.25,
            unrest_deg=1.5,
        )
    lane = float(rng.uniform(0.25, 0.6))
    if shifted:  # any lane, or on the pavement
        lane = float(rng.choice([-1.25, 1.25]) if rng.random() < 0.25 else rng.uniform(-0.65, 0.65))
    zoom = rng.uniform(0.78, 1.3) if shifted else rng.uniform(0.88, 1.14)
    return Rig(
        field_deg=float(np.clip(first.field_deg * zoom, 45.0, 100.0)),
        height=float(rng.uniform(1.3, 3.4) if shifted else rng.uniform(1.5, 2.6)),
        pitch_deg=float(rng.uniform(-2.0, 10.0) if shifted else rng.uniform(0.0, 6.0)),
        roll_deg=float(rng.normal(0.0, 1.5 if shifted else 0.8)),
        turn_deg=float(rng.uniform(-24.0, 24.0) if shifted else rng.normal(0.0, 3.0)),
        lane=lane,
        sway=0.4 if shifted else 0.3,
        unrest_deg=4.0 if shifted else 2.5,
    )


def look(
    stretches: Stretches,
    stretch: NDArray[np.int64] | Array,
    along: Array,
    rig: Rig,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[Poses, list[Camera]]:
    """The poses and cameras of photographs (width, height) at places on stretches."""
    count = len(along)
    rows = np.asarray(stretch, np.int64)
    street = stretches.heading[rows]
    ahead, right = _direction(street), _direction(street + 90.0)
    lateral = rig.lane * stretches.half_width + rig.sway * rng.normal(size=count)
    flat = stretches.start[rows] + along[:, None] * ahead + lateral[:, None] * right
    up = rig.height + 0.04 * rng.normal(size=count)
    wobble = rig.unrest_deg * rng.normal(size=(3, count))
    heading = street + stretches.view[rows] + rig.turn_deg + wobble[0]
    poses = Poses.looking(
        np.column_stack([flat, up]),
        heading,
        rig.pitch_deg + 0.4 * wobble[1],
        rig.roll_deg + 0.3 * wobble[2],
    )
    width, height = size
    fields = np.radians(rig.field_deg * np.exp(0.01 * rng.normal(size=count)))
    focal = 0.5 * width / np.tan(0.5 * fields)
    return poses, [Camera(width, height, f, f, 0.5 * width, 0.5 * height) for f in focal.tolist()]


def _direction(heading: float | Array) -> Array:
    angle = np.radians(heading)
    return np.stack([np.sin(angle), np.cos(angle)], -1)
