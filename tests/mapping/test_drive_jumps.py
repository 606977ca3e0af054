"""Jumps of a drive in the map, on straight streets of two metres a step."""

from __future__ import annotations

import numpy as np
import pytest

from vladmap.mapping import drive_jumps

COUNT = 20
STREET = np.stack([2.0 * np.arange(COUNT), np.zeros(COUNT), np.zeros(COUNT)], axis=1)
ONE, INDEX, SIGMA = np.zeros(COUNT, np.int64), np.arange(COUNT), np.full(COUNT, 1.0)
NONE = np.zeros((2, 0), np.int64)
UNKNOWN = np.full((COUNT, 3), np.nan)


def beyond_jumps(*given: np.ndarray, held: np.ndarray = NONE) -> np.ndarray:
    return drive_jumps.beyond_jumps(*given, held)


def jumped(shift: float = 30.0, start: int = 14) -> np.ndarray:
    place = STREET.copy()
    place[start:, 1] += shift
    return place


@pytest.mark.parametrize("gps", [STREET, UNKNOWN])
def test_all_beyond_a_jump_are_marked_where_gps_stays_or_is_unknown(gps: np.ndarray) -> None:
    found = beyond_jumps(jumped(), ONE, INDEX, gps, SIGMA)
    assert np.flatnonzero(found).tolist() == list(range(14, 20))


def test_the_larger_piece_is_believed() -> None:
    found = beyond_jumps(jumped(start=4), ONE, INDEX, STREET, SIGMA)
    assert np.flatnonzero(found).tolist() == [0, 1, 2, 3]


def test_a_jump_that_gps_shares_is_none() -> None:
    offset = np.array([15.0, -12.0, 0.0])  # of a canyon: both sides have it
    assert not beyond_jumps(jumped(), ONE, INDEX, jumped() + offset, SIGMA).any()


@pytest.mark.parametrize("stretch", [slice(8, 12), slice(4, 7), slice(13, 16)])
def test_of_a_stretch_put_aside_both_ends_of_the_drive_are_believed(stretch: slice) -> None:
    place = STREET.copy()
    place[stretch, 1] += 30.0
    found = beyond_jumps(place, ONE, INDEX, UNKNOWN, SIGMA)
    assert np.flatnonzero(found).tolist() == list(range(COUNT))[stretch]


def test_one_photograph_off_to_one_side_does_not_cut_its_drive() -> None:
    """It jumps from the photograph before alone; pairs past it are held."""
    place = STREET.copy()
    place[9, 0] += 10.0
    place[10:] += [6.0, 0.0, 0.0]
    assert np.flatnonzero(beyond_jumps(place, ONE, INDEX, UNKNOWN, SIGMA)).tolist() == list(
        range(9)
    )
    past = np.array([[8], [10]])
    assert not beyond_jumps(place, ONE, INDEX, UNKNOWN, SIGMA, held=past).any()


def test_pairs_of_two_passes_of_one_place_do_not_mend_a_jump() -> None:
    far = np.array([[0], [18]])
    found = beyond_jumps(jumped(), ONE, INDEX, UNKNOWN, SIGMA, held=far)
    assert np.flatnonzero(found).tolist() == list(range(14, 20))


def test_photographs_left_out_between_two_make_no_jump() -> None:
    place, index = STREET.copy(), INDEX.copy()
    place[14:, 0] += 30.0
    index[14:] += 15
    assert not beyond_jumps(place, ONE, index, UNKNOWN, SIGMA).any()


def test_order_is_that_of_the_drive_and_photographs_of_no_drive_are_left_out() -> None:
    shuffled = np.random.default_rng(0).permutation(COUNT)
    found = beyond_jumps(jumped()[shuffled], ONE, INDEX[shuffled], UNKNOWN, SIGMA)
    assert sorted(shuffled[found].tolist()) == list(range(14, 20))
    assert not beyond_jumps(jumped(), ONE - 1, INDEX, UNKNOWN, SIGMA).any()


def test_a_drive_of_few_has_no_usual_step() -> None:
    assert not beyond_jumps(jumped()[12:16], ONE[:4], INDEX[:4], UNKNOWN[:4], SIGMA[:4]).any()


def test_two_drives_are_judged_apart() -> None:
    place, drive = np.vstack([STREET, jumped()]), np.repeat([0, 1], COUNT)
    found = beyond_jumps(
        place, drive, np.tile(INDEX, 2), np.vstack([UNKNOWN, UNKNOWN]), np.tile(SIGMA, 2)
    )
    assert np.flatnonzero(found).tolist() == list(range(COUNT + 14, 2 * COUNT))
