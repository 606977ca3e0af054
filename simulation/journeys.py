"""What the camera of a car sees along a lane: poses, times, and the street that each is in."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vladmap.simulation.camera import Array, Poses
from vladmap.simulation.route import CAMERA_HEIGHT, sway
from vladmap.simulation.walks import Network, Node, lane_of

SPACING = 3.0  # m between photographs on straights
SPEED = 8.0  # m/s there

_MOST_TURN_DEG = 14.0  # between photographs: cars slow down in turns
_SMOOTH = 41  # points of a path over which they do


@dataclass(frozen=True, eq=False)
class Journey:
    """N photographs of one drive. seconds: (N,) since its start. distance: (N,) m driven. course:
    (N,) degrees clockwise from north, of the car. street: (N,) numbers of the streets, each a
    straight line through the network; all the pieces of it have the same number."""

    poses: Poses
    seconds: Array
    distance: Array
    course: Array
    street: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.poses)


def journey(network: Network, walk: list[Node], images: int, rng: np.random.Generator) -> Journey:
    """Drive along a walk, the camera looking ahead, for `images` photographs; ValueError if it is
    too short for them."""
    places = np.array([network.place(node) for node in walk])
    path, heading, leg = lane_of(places)
    step = np.linalg.norm(np.diff(path, axis=0), axis=1)
    turn = np.degrees(np.unwrap(np.radians(heading)))
    # Time between photographs is even; `pace` is path length per photograph, in spacings.
    rate = np.abs(np.diff(turn)) / np.maximum(step, 1e-9)
    pace = np.minimum(1.0, _MOST_TURN_DEG / np.maximum(rate * SPACING, 1e-9))
    padded = np.pad(pace, _SMOOTH // 2, mode="edge")
    pace = np.minimum(pace, np.convolve(padded, np.full(_SMOOTH, 1 / _SMOOTH), "valid"))
    clock = np.concatenate([[0.0], np.cumsum(step / pace)])
    ticks: Array = SPACING * np.arange(images, dtype=np.float64)
    if ticks[-1] > clock[-1]:
        raise ValueError(f"{clock[-1]:.0f} m are too short for {images} photographs")
    length = np.concatenate([[0.0], np.cumsum(step)])
    distance = np.interp(ticks, clock, length)
    course = np.interp(distance, length, turn)
    flat = np.stack([np.interp(distance, length, path[:, axis]) for axis in (0, 1)], -1)
    right = np.stack([np.cos(np.radians(course)), -np.sin(np.radians(course))], -1)
    flat += right * sway(distance, 0.22, rng)[:, None]
    up = CAMERA_HEIGHT + sway(distance, 0.03, rng)
    poses = Poses.looking(
        np.column_stack([flat, up]),
        course + sway(distance, 1.3, rng),
        1.0 + sway(distance, 0.6, rng),
        sway(distance, 0.4, rng),
    )
    row = np.minimum(np.searchsorted(length, distance, side="right") - 1, len(leg) - 1)
    street = _street_numbers(walk)[leg[row]]
    return Journey(poses, ticks / SPEED, distance, course % 360.0, street)


def moved(drive: Journey, east: float) -> Journey:
    """The same drive so many metres farther east."""
    shift = np.array([east, 0.0, 0.0])
    return replace(drive, poses=Poses(drive.poses.centre + shift, drive.poses.rotation))


def _street_numbers(walk: list[Node]) -> NDArray[np.int64]:
    """(legs,) even numbers for streets to the north, odd ones for streets to the east."""
    numbers = []
    for (i, j), (k, _) in itertools.pairwise(walk):
        numbers.append(2 * round(i) if i == k else 2 * round(j) + 1)
    return np.array(numbers, np.int64)
