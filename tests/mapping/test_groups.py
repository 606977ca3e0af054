"""Medians of groups, against numpy's of each."""

from __future__ import annotations

import numpy as np

from vladmap.mapping.groups import group_medians


def test_each_group_has_its_own_median_and_an_empty_one_none() -> None:
    rng = np.random.default_rng(0)
    group, values = rng.integers(0, 6, 101), rng.normal(size=101)
    group[group == 4] = 5
    found = group_medians(values, group, 7)
    expected = [np.median(values[group == name]) for name in (0, 1, 2, 3, 5)]
    np.testing.assert_array_equal(found[[0, 1, 2, 3, 5]], expected)
    assert np.isnan(found[[4, 6]]).all()


def test_no_values_give_no_medians() -> None:
    assert np.isnan(group_medians(np.zeros(0), np.zeros(0, np.int64), 2)).all()
    assert len(group_medians(np.zeros(0), np.zeros(0, np.int64), 0)) == 0
