"""Drives through a city: closed loops around blocks, in the right-hand lane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vladmap.simulation.camera import Array, Poses
from vladmap.simulation.city import PITCH

CAMERA_HEIGHT = 2.2  # m above the road, on a car's roof
LANE = 2.0  # m from the street's centre line
TURN_RADIUS = 7.0  # m
_TURN_SPACING = 0.6  # of the spacing on straights: cars slow down in turns
_REVISIT = 1.14  # a drive goes around its loop once and then this much of it again
_SPACING = (2.5, 4.0)  # m between photographs on straights


@dataclass(frozen=True, eq=False)
class Drive:
    """The photographs of one drive. distance: (N,) metres driven at each."""

    poses: Poses
    distance: Array


def drive(
    block: tuple[int, int], images: int, rng: np.random.Generator, *, clockwise: bool = True
) -> Drive:
    """Drive around a block, forward-facing, for `images` photographs.

    The spacing on straights lies within 2.5 to 4 m, and is such, where that allows, that the drive
    ends by driving again where it began (a loop to close). Small smooth movements within the
    lane, of the heading, the pitch and the roll come from `rng`.
    """
    path, heading = _loop(block, clockwise)
    step = np.linalg.norm(np.diff(path, axis=0), axis=1)
    turning = np.abs(np.diff(np.unwrap(np.radians(heading)))) > 1e-6
    # Time between photographs is even; `pace` is path length per photograph, in spacings.
    pace = np.convolve(np.where(turning, _TURN_SPACING, 1.0), np.full(41, 1 / 41), "same")
    pace = np.maximum(pace, _TURN_SPACING)
    clock = np.concatenate([[0.0], np.cumsum(step / pace)])
    spacing = float(np.clip(clock[-1] * _REVISIT / max(images, 1), *_SPACING))
    ticks = spacing * np.arange(images)
    lap, ticks = np.divmod(ticks, clock[-1])
    length = np.concatenate([[0.0], np.cumsum(step)])
    along = np.interp(ticks, clock, length)
    distance = lap * length[-1] + along
    turn = np.degrees(np.unwrap(np.radians(heading)))
    yaw = np.interp(along, length, turn)
    flat = np.stack([np.interp(along, length, path[:, axis]) for axis in (0, 1)], -1)
    right = np.stack([np.cos(np.radians(yaw)), -np.sin(np.radians(yaw))], -1)
    flat += right * sway(distance, 0.22, rng)[:, None]
    up = CAMERA_HEIGHT + sway(distance, 0.03, rng)
    poses = Poses.looking(
        np.column_stack([flat, up]),
        yaw + sway(distance, 1.3, rng),
        1.0 + sway(distance, 0.6, rng),
        sway(distance, 0.4, rng),
    )
    return Drive(poses, distance)


def _loop(block: tuple[int, int], clockwise: bool) -> tuple[Array, Array]:
    """Path (P, 2) in metres, every 0.1 m, and heading (P,) in degrees; closed.

    Clockwise, the block is to the right and so is the lane: the loop is the smaller one. It starts
    in the middle of the west side, or the east side if anticlockwise: northwards both times.
    """
    inset = LANE if clockwise else -LANE
    west, south = block[0] * PITCH[0] + inset, block[1] * PITCH[1] + inset
    east, north = (block[0] + 1) * PITCH[0] - inset, (block[1] + 1) * PITCH[1] - inset
    corners = np.array([[west, north], [east, north], [east, south], [west, south]])
    if not clockwise:
        corners = corners[[1, 0, 3, 2]]
    start = np.array([corners[0, 0], 0.5 * (north + south)])
    points, headings, at, heading = [start[None]], [np.zeros(1)], start, 0.0
    turn = 90.0 if clockwise else -90.0
    for corner in corners:
        ahead = direction(heading)
        leg = float((corner - at) @ ahead) - TURN_RADIUS
        points.append(at + np.linspace(0, leg, round(leg * 10))[1:, None] * ahead)
        headings.append(np.full(len(points[-1]), heading))
        # The centre of the arc lies to the side that the road turns to.
        centre = points[-1][-1] + TURN_RADIUS * direction(heading + turn)
        swept = np.linspace(0, turn, round(np.pi / 2 * TURN_RADIUS * 10))[1:]
        points.append(centre - TURN_RADIUS * direction(heading + swept + turn))
        headings.append(heading + swept)
        heading += turn
        at = points[-1][-1]
    leg = float((start - at) @ direction(heading))
    points.append(at + np.linspace(0, leg, round(leg * 10))[1:, None] * direction(heading))
    headings.append(np.full(len(points[-1]), heading))
    return np.concatenate(points), np.concatenate(headings)


def direction(heading: float | Array) -> Array:
    """(..., 2) unit vectors east, north of headings in degrees clockwise from north."""
    angle = np.radians(heading)
    return np.stack([np.sin(angle), np.cos(angle)], -1)


def sway(distance: Array, sigma: float, rng: np.random.Generator) -> Array:
    """(N,) smooth movement along the way, of standard deviation `sigma`, with a little unrest."""
    wavelengths = np.array([7.0, 13.0, 29.0, 61.0])
    phases = rng.uniform(0, 2 * np.pi, 4)
    waves = np.sin(distance[:, None] * (2 * np.pi / wavelengths) + phases).sum(1)
    return sigma * (0.95 * waves / np.sqrt(2.0) + 0.3 * rng.standard_normal(len(distance)))
