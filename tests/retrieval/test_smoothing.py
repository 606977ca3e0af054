"""Descriptors of a database smoothed over the photographs taken beside each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from vladmap.retrieval import smoothing
from vladmap.retrieval.smoothing import smooth


def unit_rows(count: int, dimension: int, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(count, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def line(*metres: float) -> NDArray[np.float64]:
    return np.array(metres)[:, None]


def test_a_neighbour_weighs_by_its_distance_and_one_beyond_two_sigmas_nothing() -> None:
    smoothed = smooth(np.eye(3, dtype=np.float32), line(0.0, 6.0, 18.5), np.zeros(3), 6.0)
    near = math.exp(-0.5)  # one sigma away
    length = math.hypot(1, near)
    wanted = np.array([[1 / length, near / length, 0], [near / length, 1 / length, 0], [0, 0, 1]])
    np.testing.assert_allclose(smoothed, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("headings", "mixed"),
    [((350.0, 30.0), True), ((350.0, 40.0), False), ((0.0, 180.0), False), ((-10.0, 355.0), True)],
)
def test_photographs_that_look_another_way_are_not_mixed(
    headings: tuple[float, float], mixed: bool
) -> None:
    same = np.array([[1, 0], [0.8, 0.6]], np.float32)
    smoothed = smooth(same, line(0.0, 1.0), np.array(headings), 6.0)
    assert (not np.array_equal(smoothed, same)) == mixed


@pytest.mark.parametrize(("cosine", "share"), [(-0.2, 0.0), (0.0, 0.0), (0.06, 0.4), (0.5, 1.0)])
def test_without_a_heading_descriptors_tell_who_looks_the_same_way(
    cosine: float, share: float
) -> None:
    ours = np.array([1.0, 0.0])
    theirs = np.array([cosine, math.sqrt(1 - cosine**2)])
    mixed = ours + share * theirs  # at no distance
    smoothed = smooth(
        np.stack([ours, theirs]).astype(np.float32), line(5.0, 5.0), np.array([90.0, np.nan]), 6.0
    )
    np.testing.assert_allclose(smoothed[0], mixed / np.linalg.norm(mixed), atol=1e-6)


def test_it_is_its_definition_whatever_is_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    rows, sigma = unit_rows(50, 16), 4.0
    positions = rng.uniform(0, 30, (50, 3))
    headings = np.where(rng.random(50) < 0.3, np.nan, rng.uniform(0, 360, 50))
    wanted = np.empty((50, 16))
    for i in range(50):
        wanted[i] = rows[i]
        for j in set(range(50)) - {i}:
            apart = float(np.linalg.norm(positions[i] - positions[j]))
            turned = abs((headings[i] - headings[j] + 180) % 360 - 180)
            cosine = float(rows[i].astype(float) @ rows[j].astype(float))
            same = min(max(cosine / 0.15, 0), 1) if math.isnan(turned) else float(turned <= 45)
            near = math.exp(-((apart / sigma) ** 2) / 2) if apart <= 2 * sigma else 0.0
            wanted[i] += near * same * rows[j]
        wanted[i] /= np.linalg.norm(wanted[i])
    for at_once in (1, 5000, 1 << 23):
        monkeypatch.setattr(smoothing, "_NUMBERS_AT_ONCE", at_once)
        np.testing.assert_allclose(smooth(rows, positions, headings, sigma), wanted, atol=1e-6)


def test_what_has_no_descriptor_or_no_position_neither_gives_nor_takes() -> None:
    rows = unit_rows(4, 8)
    rows[1] = 0
    positions = line(0.0, 0.0, np.nan, 0.0)
    smoothed = smooth(rows, positions, np.zeros(4), 6.0)
    assert not smoothed[1].any()
    np.testing.assert_array_equal(smoothed[2], rows[2])
    np.testing.assert_array_equal(
        smoothed[[0, 3]], smooth(rows[[0, 3]], line(0, 0), np.zeros(2), 6.0)
    )
    np.testing.assert_array_equal(rows, smooth(rows, np.full((4, 1), np.nan), np.zeros(4), 6.0))


def test_descriptors_that_cancel_out_stay_as_they_are() -> None:
    rows = np.array([[1, 0], [-1, 0]], np.float32)
    np.testing.assert_array_equal(smooth(rows, line(3.0, 3.0), np.zeros(2), 6.0), rows)


def test_a_crowd_that_states_one_position_is_mixed_within_bounds_and_never_twice_with_itself() -> (
    None
):
    rows = np.eye(200, dtype=np.float32)
    smoothed = smooth(rows, np.zeros((200, 2)), np.zeros(200), 6.0)
    assert np.isfinite(smoothed).all()
    mixed_in = (smoothed > 0).sum(axis=1)
    assert mixed_in.min() > 1
    assert mixed_in.max() <= 65  # itself and at most 64 others
    assert (np.diag(smoothed) == smoothed.max(axis=1)).all()
    np.testing.assert_allclose(
        np.diag(smoothed) ** 2 * mixed_in, 1, rtol=1e-5
    )  # all weigh the same


def test_places_are_found_more_often_where_photographs_share_them() -> None:
    """A street of 200 photographs that change slowly, each with as much of its own by chance."""
    rng = np.random.default_rng(0)
    count, dimension = 200, 32
    anchors = rng.normal(size=(count // 5 + 1, dimension))
    at = np.arange(count) / 5
    left = at.astype(int)
    street = anchors[left] * (1 - at + left)[:, None] + anchors[left + 1] * (at - left)[:, None]

    def seen() -> NDArray[np.float32]:
        rows = street + 1.2 * rng.normal(size=street.shape)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    database, queries = seen(), seen()
    positions = np.arange(count, dtype=float)[:, None]
    smoothed = smooth(database, positions, np.zeros(count), 2.0)

    def recall(rows: NDArray[np.float32]) -> float:
        apart = np.abs((queries @ rows.T).argmax(axis=1) - np.arange(count))
        return float((apart <= 2).mean())

    assert recall(smoothed) > recall(database) + 0.15


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan])
def test_a_sigma_is_above_zero(sigma: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        smooth(unit_rows(2, 4), line(0, 1), np.zeros(2), sigma)
