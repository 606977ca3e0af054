"""Figures of groups of values, of all groups at once."""

from __future__ import annotations

import numpy as np

from vladmap.mapping.arrays import Array, Indices


def group_medians(values: Array, group: Indices, groups: int) -> Array:
    """Return the median (groups,) of the values (k,) of each group, NaN for an empty one.

    `group` (k,) is the number of each value's group.
    """
    order = np.lexsort((values, group))
    ordered = values[order]
    present, start, count = np.unique(group[order], return_index=True, return_counts=True)
    medians = np.full(groups, np.nan)
    medians[present] = (ordered[start + (count - 1) // 2] + ordered[start + count // 2]) / 2
    return medians
