"""Delta descriptors: what changes along a drive, instead of what is seen.

Garg, Harwood, Anand and Milford, "Delta Descriptors: Change-Based Place Representation for Robust
Visual Localization" (RA-L 2020, arXiv 2006.05700).
"""

from __future__ import annotations

import numpy as np

from vladmap.retrieval.sequences.evidence import Matrix, unit
from vladmap.retrieval.sequences.recordings import Recordings

WINDOW = 16
"""Photographs of a window, as published."""

_NUMBERS_AT_ONCE = 1 << 22


def delta_descriptors(rows: Matrix, recordings: Recordings, window: int = WINDOW) -> Matrix:
    """Unit vectors (N, D): the mean of the later half of each window less that of the earlier half.

    `rows` (N, D) are descriptors in the order of their recordings. The halves, `window` / 2 rows
    each, end and begin at the row itself, which is the first of the later; near the ends of a
    recording they are shorter. Rows without a descriptor (zero) are left out of the means. A row
    whose halves are equal, or of which one is empty, keeps its own descriptor; a zero row stays
    zero. What a whole drive has in common cancels out. The sign turns where the street is driven
    the other way. Raises ValueError for a window of less than two.
    """
    if window < 2:
        raise ValueError(f"a window has two photographs at least, not {window}")
    half = window // 2
    own = np.arange(len(rows))
    low = np.maximum(recordings.first, own - half)
    high = np.minimum(recordings.end, own + half)
    known = rows.any(axis=1)
    counts = np.concatenate([[0], np.cumsum(known)])
    later, earlier = counts[high] - counts[own], counts[own] - counts[low]
    both = (later > 0) & (earlier > 0) & known
    delta = np.zeros_like(rows)
    step = max(1, _NUMBERS_AT_ONCE // max(1, len(rows)))
    for start in range(0, rows.shape[1], step):
        part = slice(start, start + step)
        sums = np.zeros((len(rows) + 1, rows[:, part].shape[1]))
        np.cumsum(rows[:, part], axis=0, dtype=np.float64, out=sums[1:])
        after = (sums[high] - sums[own]) / np.maximum(later, 1)[:, None]
        before = (sums[own] - sums[low]) / np.maximum(earlier, 1)[:, None]
        delta[:, part] = after - before
    delta[~both] = 0
    changed = unit(delta)
    same = ~changed.any(axis=1)
    changed[same] = rows[same]
    return changed
