"""GPS as it is: its noise, the bias of a street, jumps, gaps and wrong headings, by their sizes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vladmap.geodesy.wgs84 import geodetic_to_enu
from vladmap.simulation.camera import Poses
from vladmap.simulation.journeys import Journey
from vladmap.simulation.positioning import (
    CANYON_BIAS_M,
    CANYONS,
    DRIFT_LENGTH_M,
    DRIFT_M,
    GAP_M,
    NOISE_M,
    WRONG_STREETS,
    position,
)
from vladmap.simulation.truth import ORIGIN


def straight(count: int = 6000, street_m: float = 150.0) -> Journey:
    """Photographs every 3 m due north; each `street_m` is another street."""
    distance = 3.0 * np.arange(count)
    centre = np.column_stack([np.zeros(count), distance, np.full(count, 2.2)])
    zero = np.zeros(count)
    poses = Poses.looking(centre, zero, zero, zero)
    street: NDArray[np.int64] = 2 * (distance // street_m).astype(np.int64)
    return Journey(poses, distance / 8.0, distance, zero, street)


def turned(heading: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs((heading + 180.0) % 360.0 - 180.0)


def test_good_positions_have_the_stated_noise_and_drift() -> None:
    drive = straight(20_000)
    got = position(drive, "good", np.random.default_rng(0))
    east = got.error[:, 0]
    assert east.std() == pytest.approx(np.hypot(NOISE_M, DRIFT_M), rel=0.1)
    # Neighbours differ by the noise of both, and by what little the drift changes in 3 m.
    kept = np.exp(-3.0 / DRIFT_LENGTH_M)
    step = np.sqrt(2 * NOISE_M**2 + 2 * DRIFT_M**2 * (1 - kept))
    assert np.diff(east).std() == pytest.approx(step, rel=0.05)
    assert got.error[:, 2].std() == pytest.approx(1.5 * east.std(), rel=0.1)
    assert 0.01 < got.lost.mean() < 0.03
    assert np.sqrt(np.mean(turned(got.heading) ** 2)) == pytest.approx(1.5, rel=0.05)


def test_in_a_canyon_a_street_is_off_by_one_bias_and_the_next_by_another() -> None:
    drive = straight()
    got = position(drive, "canyon", np.random.default_rng(1))
    middle = (drive.distance % 150.0 > 25.0) & (drive.distance % 150.0 < 125.0)
    streets = np.unique(drive.street)
    typical = np.array(
        [np.median(got.error[middle & (drive.street == each), :2], axis=0) for each in streets]
    )
    size = np.linalg.norm(typical, axis=1)
    biased = size > CANYON_BIAS_M[0] - 4.0  # less the drift's
    assert biased.mean() == pytest.approx(CANYONS, abs=0.12)
    assert size.max() < CANYON_BIAS_M[1] + 5.0
    assert size[biased].mean() == pytest.approx(np.mean(CANYON_BIAS_M), abs=2.5)
    # Within a street the bias is shared: the spread is that of good GPS, jumps aside.
    for each, bias in zip(streets, typical, strict=True):
        away = np.linalg.norm(got.error[middle & (drive.street == each), :2] - bias, axis=1)
        assert np.median(away) < 4.0
    # Between neighbouring biased streets it changes.
    both = biased[1:] & biased[:-1]
    assert np.median(np.linalg.norm(np.diff(typical, axis=0), axis=1)[both]) > 10.0


def test_in_a_canyon_positions_are_missing_for_200_m_in_each_kilometre() -> None:
    drive = straight()
    got = position(drive, "canyon", np.random.default_rng(2))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], got.lost.astype(int), [0]])))
    runs = 3.0 * (edges[1::2] - edges[::2])
    gaps = runs[runs > 0.8 * GAP_M]
    assert len(gaps) == pytest.approx(drive.distance[-1] / 1000.0, abs=1.5)
    assert gaps.min() > GAP_M - 4.0
    assert np.median(gaps) < GAP_M + 10.0


def test_jumps_go_as_suddenly_as_they_come() -> None:
    drive = straight()
    got = position(drive, "canyon", np.random.default_rng(3))
    steps = np.linalg.norm(np.diff(got.error[:, :2], axis=0), axis=1)
    sudden = int((steps > 17.0).sum())
    # One in 250 m on average, and two steps each: away and back.
    assert 0.6 < sudden / (2 * drive.distance[-1] / 250.0) < 1.4


def test_in_a_canyon_some_headings_are_wrong_and_some_streets_wholly() -> None:
    drive = straight()
    got = position(drive, "canyon", np.random.default_rng(4))
    wrong = turned(got.heading) > 15.0
    share = np.array([wrong[drive.street == each].mean() for each in np.unique(drive.street)])
    assert 0.02 < (share > 0.9).mean() < 2.5 * WRONG_STREETS
    assert 0.01 < share[share < 0.9].mean() < 0.06


def test_without_gps_there_is_no_position_at_all() -> None:
    drive = straight(50)
    got = position(drive, "none", np.random.default_rng(0))
    assert got.lost.all()
    assert got.fixes(drive) == [None] * 50


def test_tags_say_where_the_errors_put_the_photographs() -> None:
    drive = straight(20)
    got = position(drive, "good", np.random.default_rng(5))
    for row, fix in enumerate(got.fixes(drive)):
        if fix is not None:
            enu = geodetic_to_enu([fix.latitude, fix.longitude, fix.altitude], ORIGIN)
            np.testing.assert_allclose(enu, drive.poses.centre[row] + got.error[row], atol=1e-6)
