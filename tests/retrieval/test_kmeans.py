from __future__ import annotations

import numpy as np
import pytest

from vladmap.retrieval.kmeans import kmeans
from vladmap.schemas.rejects import UserError


def test_the_centres_are_the_means_of_well_separated_groups() -> None:
    generator = np.random.default_rng(0)
    groups = np.array([[0, 0], [10, 0], [0, 10]], np.float32)
    points = np.concatenate([group + 0.1 * generator.normal(size=(50, 2)) for group in groups])
    centres = kmeans(points.astype(np.float32), 3)
    expected = points.reshape(3, 50, 2).mean(axis=1)
    order = [int(np.linalg.norm(centres - group, axis=1).argmin()) for group in groups]
    assert sorted(order) == [0, 1, 2]
    assert centres[order] == pytest.approx(expected, abs=1e-5)


def test_every_centre_is_the_mean_of_the_points_nearest_to_it() -> None:
    points = np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32)
    centres = kmeans(points, 5)
    nearest = ((points[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
    for k in range(5):
        assert centres[k] == pytest.approx(points[nearest == k].mean(axis=0), abs=0.05)


def test_the_order_of_the_points_does_not_matter() -> None:
    generator = np.random.default_rng(2)
    points = generator.normal(size=(2000, 16)).astype(np.float32)
    points[:3] = -0.0
    assert np.array_equal(kmeans(points, 8), kmeans(generator.permutation(points), 8))


def test_another_seed_starts_elsewhere() -> None:
    points = np.random.default_rng(3).normal(size=(500, 8)).astype(np.float32)
    assert not np.array_equal(kmeans(points, 8, seed=0), kmeans(points, 8, seed=1))


def test_as_many_points_as_clusters_suffice_and_fewer_do_not() -> None:
    points = np.eye(4, dtype=np.float32)
    assert sorted(kmeans(points, 4).tolist()) == sorted(points.tolist())
    with pytest.raises(UserError, match="5 clusters"):
        kmeans(points, 5)


def test_numbers_that_are_not_finite_are_refused() -> None:
    points = np.ones((10, 2), np.float32)
    points[4, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        kmeans(points, 2)
