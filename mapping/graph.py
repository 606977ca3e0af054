"""Graphs of images as arrays of edges."""

from __future__ import annotations

import numpy as np

from vladmap.mapping.arrays import Indices


def connected_components(size: int, first: Indices, second: Indices) -> Indices:
    """Return each node's component, (size,), named by its smallest node.

    Minimum labels spread over the edges with pointer jumping (Shiloach and Vishkin, 1982): a few
    array operations for each of about log(size) rounds.
    """
    label = np.arange(size)
    while True:
        low = np.minimum(label[first], label[second])
        update = label.copy()
        np.minimum.at(update, label[first], low)
        np.minimum.at(update, label[second], low)
        while True:
            jumped = update[update]
            if np.array_equal(jumped, update):
                break
            update = jumped
        if np.array_equal(update, label):
            return label
        label = update
