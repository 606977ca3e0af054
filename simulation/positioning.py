"""What GPS receivers say of a drive: good ones under an open sky, and real ones between houses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from vladmap.geodesy.wgs84 import enu_to_geodetic
from vladmap.simulation.camera import Array
from vladmap.simulation.exif import Fix
from vladmap.simulation.journeys import Journey
from vladmap.simulation.truth import ORIGIN

NOISE_M = 1.0
"""Standard deviation of each horizontal axis, independent from photograph to photograph."""

DRIFT_M, DRIFT_LENGTH_M = 1.5, 80.0
"""Standard deviation of what wanders along a drive, and over how many metres it does."""

CANYONS = 0.6
"""Share of the streets that are canyons."""

CANYON_BIAS_M = (10.0, 30.0)
"""How far off a whole street is there."""

JUMP_M, JUMP_IMAGES, JUMP_EVERY_M = (20.0, 60.0), (3, 8), 250.0
"""How far positions jump between houses, for how many photographs, and how often on average."""

GAP_M, GAP_EVERY_M = 200.0, 1000.0
"""Stretches without a position, such as tunnels, and one of them in so many metres."""

WRONG_STREETS, WRONG_HEADINGS = 0.12, 0.03
"""Shares of the streets whose headings are all turned, and of photographs with any heading."""

_RAMP_M = 4.0  # standard deviation of the smoothing between one street's bias and the next
_LOST = 0.02  # share of single photographs without a position, under an open sky too
_ALTITUDE = 1.5  # times the horizontal error
_HEADING_DEG = 1.5
_CLAIMED_M, _CLAIMED_IN_CANYONS_M = 3.0, 8.0  # what receivers say of themselves


@dataclass(frozen=True, eq=False)
class Positioning:
    """What the receiver got of N photographs. error: (N, 3) m east, north, up. lost: (N,) where
    there is no position. heading: (N,) degrees, as measured. claimed: (N,) m, the accuracy that
    the receiver states."""

    error: Array
    lost: NDArray[np.bool_]
    heading: Array
    claimed: Array

    def fixes(self, drive: Journey) -> list[Fix | None]:
        """The tags of the photographs; None without a position."""
        places = enu_to_geodetic(drive.poses.centre + self.error, ORIGIN)
        rows = zip(
            places.tolist(),
            self.claimed.tolist(),
            self.heading.tolist(),
            self.lost.tolist(),
            strict=True,
        )
        return [
            None if lost else Fix(latitude, longitude, altitude, claimed, heading)
            for (latitude, longitude, altitude), claimed, heading, lost in rows
        ]


def position(drive: Journey, kind: str, rng: np.random.Generator) -> Positioning:
    """What GPS says along a drive: `good`, `canyon` or `none`, as simulation.names.GPS lists them.

    good: noise of NOISE_M and a slow drift. canyon: besides, on most streets a bias that lasts as
    long as the street, single jumps, stretches without any position, and headings that are wrong,
    of a photograph or a whole street. none: nothing.
    """
    count = len(drive)
    error = np.zeros((count, 3))
    error += NOISE_M * rng.normal(size=(count, 3))
    error += _drift(drive.distance, rng)
    heading = drive.poses.headings() + _HEADING_DEG * rng.normal(size=count)
    lost = rng.random(count) < _LOST
    claimed = np.full(count, _CLAIMED_M)
    if kind == "canyon":
        bias, narrow = _street_bias(drive, rng)
        error[:, :2] += bias + _jumps(drive.distance, rng)
        claimed[narrow] = _CLAIMED_IN_CANYONS_M
        lost |= _gaps(drive.distance, rng)
        heading += _wrong_headings(drive.street, rng)
    if kind == "none":
        lost[:] = True
    error[:, 2] *= _ALTITUDE
    return Positioning(error, lost, heading % 360.0, claimed)


def _drift(distance: Array, rng: np.random.Generator) -> Array:
    """(N, 3) a Gauss-Markov process along the way."""
    kept = np.exp(-np.diff(distance, prepend=distance[0]) / DRIFT_LENGTH_M)
    fresh = rng.normal(size=(len(distance), 3)) * np.sqrt(1.0 - kept**2)[:, None]
    drift = np.empty_like(fresh)
    at = rng.normal(size=3)
    for row, share in enumerate(kept.tolist()):
        at = share * at + fresh[row]
        drift[row] = at
    return DRIFT_M * drift


def _street_bias(drive: Journey, rng: np.random.Generator) -> tuple[Array, NDArray[np.bool_]]:
    """(N, 2) m, one bias for all that a drive has of a street, and where canyons are."""
    streets, place = np.unique(drive.street, return_inverse=True)
    narrow = rng.random(len(streets)) < CANYONS
    size = rng.uniform(*CANYON_BIAS_M, len(streets)) * narrow
    # Signals come from along the street; its houses send the others astray, to either side.
    across = np.where(streets % 2 == 0, 90.0, 0.0) + rng.choice([0.0, 180.0], len(streets))
    angle = np.radians(across + rng.uniform(-40.0, 40.0, len(streets)))
    bias = (size * np.stack([np.sin(angle), np.cos(angle)]))[:, place.reshape(-1)].T
    metres = np.arange(0.0, drive.distance[-1] + 1.0)
    even = np.stack([_at(drive.distance, bias[:, k], metres) for k in (0, 1)], 1)
    smooth = gaussian_filter1d(even, _RAMP_M, axis=0, mode="nearest")
    bias = np.stack([np.interp(drive.distance, metres, smooth[:, k]) for k in (0, 1)], 1)
    return bias, narrow[place.reshape(-1)]


def _at(distance: Array, values: Array, places: Array) -> Array:
    """The value of the photograph before each place."""
    return values[np.maximum(np.searchsorted(distance, places, side="right") - 1, 0)]


def _jumps(distance: Array, rng: np.random.Generator) -> Array:
    jumps = np.zeros((len(distance), 2))
    for _ in range(int(rng.poisson(distance[-1] / JUMP_EVERY_M))):
        first = int(rng.integers(len(distance)))
        size, turn = rng.uniform(*JUMP_M), rng.uniform(0.0, 2 * np.pi)
        some = slice(first, first + int(rng.integers(JUMP_IMAGES[0], JUMP_IMAGES[1] + 1)))
        jumps[some] = size * np.array([np.sin(turn), np.cos(turn)])
    return jumps


def _gaps(distance: Array, rng: np.random.Generator) -> NDArray[np.bool_]:
    """One stretch without a position in each GAP_EVERY_M, where the drive is long enough."""
    gone = np.zeros(len(distance), bool)
    for start in np.arange(0.0, distance[-1] - 2 * GAP_M, GAP_EVERY_M):
        room = min(GAP_EVERY_M, distance[-1] - start) - GAP_M
        first = start + rng.uniform(0.0, room)
        gone |= (distance >= first) & (distance < first + GAP_M)
    return gone


def _wrong_headings(street: NDArray[np.int64], rng: np.random.Generator) -> Array:
    streets, place = np.unique(street, return_inverse=True)
    turned = rng.uniform(30.0, 330.0, len(streets)) * (rng.random(len(streets)) < WRONG_STREETS)
    any_heading = rng.random(len(street)) < WRONG_HEADINGS
    return turned[place.reshape(-1)] + any_heading * rng.uniform(0.0, 360.0, len(street))
