"""Tears of drives: where positions follow a jump of GPS, and the drive's own pairs do not."""

from __future__ import annotations

import numpy as np

from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.groups import group_medians
from vladmap.mapping.view_graph.frames import Baselines, Frames

# Pairs of photographs so many places apart at most say where exactly a drive is torn.
_NEAR = 2
_LEAST_PAIRS = 3
# A tear is so many standard deviations of a baseline's error at least.
_SIGMAS = 5.0


def tear_shifts(
    frames: Frames, vectors: Baselines, stretch: Indices, sequence: Indices, index: Indices
) -> Array:
    """Return by how much each image must move, (n, 3) metres, for every torn drive to be whole.

    `stretch`, `sequence` and `index` (n,) are those of the images, `vectors` the baselines of
    pairs. Between two photographs that follow each other a drive is torn if the pairs across agree
    that they lie elsewhere: the tear is the median of their residuals. Images of no drive, and all
    before the first tear of a drive, stay.
    """
    order = np.lexsort((index, sequence))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    one, other = place[vectors.first], place[vectors.second]
    same = (sequence[vectors.first] == sequence[vectors.second]) & (sequence[vectors.first] >= 0)
    near = np.flatnonzero(same & (np.abs(other - one) <= _NEAR) & (one != other))
    apart = frames.position[vectors.second[near]] - frames.position[vectors.first[near]]
    missing = frames.carried(vectors, stretch)[near] - apart
    missing *= np.sign(other - one)[near, None]
    sigma = vectors.error_m(frames.scale[stretch[vectors.first]])[near]
    begin = np.minimum(one, other)[near]
    span = np.abs(other - one)[near]
    # One row for each pair and each gap that it spans.
    pair = np.repeat(np.arange(len(near)), span)
    gap = begin[pair] + np.arange(len(pair)) - np.repeat(np.cumsum(span) - span, span)
    values = [*missing[pair].T, sigma[pair]]
    *tear, usual = (group_medians(each, gap, len(order)) for each in values)
    count = np.bincount(gap, minlength=len(order))
    torn = (count >= _LEAST_PAIRS) & (np.linalg.norm(tear, axis=0) > _SIGMAS * usual)
    shift = np.zeros((len(order), 3))
    shift[1:] = np.cumsum(np.where(torn[:, None], np.transpose(tear), 0.0), axis=0)[:-1]
    starts = np.flatnonzero(np.diff(sequence[order], prepend=-2))
    shift -= np.repeat(shift[starts], np.diff([*starts, len(order)]), axis=0)
    shift[sequence[order] < 0] = 0.0
    return shift[place]
