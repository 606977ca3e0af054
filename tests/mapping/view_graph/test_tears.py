"""Where drives are torn, and by how much, worked out by hand on a straight line."""

from __future__ import annotations

import numpy as np

from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.view_graph.frames import Baselines, Frames
from vladmap.mapping.view_graph.tears import tear_shifts


def line(count: int, tear: Array, at: int) -> tuple[Frames, Baselines, Indices]:
    """Photographs 3 m apart; those from `at` on are off by `tear`. Pairs reach two places."""
    truth = np.stack([np.zeros(count), 3.0 * np.arange(count), np.zeros(count)], axis=1)
    position = truth + np.where(np.arange(count)[:, None] >= at, tear, 0.0)
    first = np.concatenate([np.arange(count - 1), np.arange(count - 2)])
    second = np.concatenate([np.arange(1, count), np.arange(2, count)])
    frames = Frames(position, np.eye(3)[None], np.ones(1), np.zeros((1, 3)))
    return frames, Baselines(first, second, truth[second] - truth[first]), np.zeros(count, int)


def test_what_follows_a_tear_moves_back_by_it() -> None:
    tear = np.array([5.0, -1.0, 0.5])
    frames, vectors, stretch = line(12, tear, 7)
    drive, index = np.zeros(12, int), np.arange(12)
    shift = tear_shifts(frames, vectors, stretch, drive, index)
    assert np.allclose(shift, np.where(index[:, None] >= 7, -tear, 0.0))


def test_a_whole_drive_and_the_drive_after_a_torn_one_stay() -> None:
    frames, vectors, stretch = line(12, np.zeros(3), 7)
    drive = np.zeros(12, int)
    assert not tear_shifts(frames, vectors, stretch, drive, np.arange(12)).any()
    frames, vectors, stretch = line(12, np.array([9.0, 0.0, 0.0]), 4)
    drive, index = np.repeat([0, 1], 6), np.tile(np.arange(6), 2)
    shift = tear_shifts(frames, vectors, stretch, drive, index)
    assert not shift[6:].any()
    assert np.allclose(shift[4:6], [-9.0, 0.0, 0.0])


def test_the_order_of_a_pair_and_of_the_images_does_not_matter() -> None:
    tear = np.array([4.0, 4.0, 0.0])
    frames, vectors, stretch = line(10, tear, 5)
    turned = Baselines(vectors.second, vectors.first, -vectors.vector)
    drive, index = np.zeros(10, int), np.arange(10)
    assert np.allclose(
        tear_shifts(frames, turned, stretch, drive, index),
        tear_shifts(frames, vectors, stretch, drive, index),
    )
    backwards = tear_shifts(frames, vectors, stretch, drive, index[::-1].copy())
    assert np.allclose(backwards, np.where(index[:, None] >= 5, 0.0, tear))


def test_images_of_no_drive_stay() -> None:
    frames, vectors, stretch = line(8, np.array([9.0, 0.0, 0.0]), 4)
    nowhere = np.full(8, -1)
    assert not tear_shifts(frames, vectors, stretch, nowhere, np.arange(8)).any()
