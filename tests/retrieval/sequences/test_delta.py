from __future__ import annotations

import numpy as np
import pytest

from tests.retrieval.sequences.drives import descriptors
from vladmap.retrieval.sequences.delta import delta_descriptors
from vladmap.retrieval.sequences.recordings import Recordings


def test_it_is_the_later_half_less_the_earlier_one_within_the_recording() -> None:
    rows = descriptors(12, 0)
    rows[4] = 0
    found = delta_descriptors(rows, Recordings.of(["a"] * 8 + ["b"] * 4), 6)
    exact = rows.astype(np.float64)
    for row, later, earlier in (
        (5, [5, 6, 7], [2, 3]),  # row 4 has no descriptor
        (6, [6, 7], [3, 5]),
        (10, [10, 11], [8, 9]),
    ):
        expected = exact[later].mean(axis=0) - exact[earlier].mean(axis=0)
        assert np.abs(found[row] - expected / np.linalg.norm(expected)).max() < 1e-6
    assert not found[4].any()
    # The first of a recording has no earlier half: it keeps its own.
    assert np.array_equal(found[[0, 8]], rows[[0, 8]])


def test_what_all_have_in_common_cancels_and_the_way_back_turns_the_sign() -> None:
    rows = descriptors(40, 1)
    offset = rows + np.float32(3) * rows[7]
    one = Recordings.one(40)
    assert np.abs(
        delta_descriptors(offset, one)[8:33] - delta_descriptors(rows, one)[8:33]
    ).max() < (1e-5)
    back = delta_descriptors(rows[::-1].copy(), one)[::-1]
    forth = delta_descriptors(rows, one)
    # A row is the first of its later half: driven back, the halves meet one row further.
    assert np.abs(back[8:32] + forth[9:33]).max() < 1e-5


def test_equal_halves_keep_the_descriptor_and_a_window_has_two() -> None:
    rows = np.repeat(descriptors(1, 2), 20, axis=0)
    assert np.array_equal(delta_descriptors(rows, Recordings.one(20)), rows)
    with pytest.raises(ValueError, match="two"):
        delta_descriptors(rows, Recordings.one(20), 1)
