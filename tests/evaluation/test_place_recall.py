"""Recall by true places: four images on a line, their descriptors angles in the plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vladmap.evaluation.place_recall import recall_of_places, right_matches
from vladmap.photos.places import Places

NORTH = (0.0, 0.0, 0.0, 0.0)
# Two drives of two images each: 0 and 1, 2 and 3.
BESIDE = [np.array(rows) for rows in ([0, 1], [0, 1], [2, 3], [2, 3])]
ALONE = [np.array([row]) for row in range(4)]


def on_a_line(*metres: float, headings: tuple[float, ...] = NORTH) -> Places:
    positions = np.zeros((len(metres), 3))
    positions[:, 0] = metres
    count = len(metres)
    return Places((Path("x.jpg"),) * count, positions, ("",) * count, np.array(headings))


def directions(*degrees: float) -> NDArray[np.float32]:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def right(places: Places, beside: list[NDArray[np.int64]] = ALONE) -> list[list[int]]:
    return [rows.tolist() for rows in right_matches(places, beside)]


def test_right_is_within_25_m_and_not_the_image_itself() -> None:
    assert right(on_a_line(0, 24.9, 25.1, 200)) == [[1], [0, 2], [1], []]


def test_right_looks_within_40_degrees_also_across_north() -> None:
    assert right(on_a_line(0, 1, 2, 3, headings=(350, 29, 31, 170))) == [[1], [0, 2], [1], []]


def test_where_a_heading_is_not_known_the_position_decides() -> None:
    places = on_a_line(0, 1, 2, 100, headings=(0, np.nan, 180, 0))
    assert right(places) == [[1], [0, 2], [1], []]


def test_what_was_taken_beside_the_query_is_no_right_match() -> None:
    assert right(on_a_line(0, 10, 20, 100), BESIDE) == [[2], [2], [0, 1], []]


def test_recall_of_four_images_is_the_hand_worked_one() -> None:
    """Angles 0, 10, 50, 30; without its own drive 0 and 1 see 3 before 2, and 2 sees 1 first.

    So the best match is right for image 2 alone, the second best for 0 and 1; 3 has no right match.
    """
    recall = recall_of_places(directions(0, 10, 50, 30), on_a_line(0, 10, 20, 100), BESIDE)
    assert (recall.queries, recall.with_positive) == (4, 3)
    assert (recall.hits[1], recall.hits[5]) == (1, 3)
    assert recall.recall(1) == pytest.approx(1 / 4)
    assert recall.recall_with_positive(1) == pytest.approx(1 / 3)
    assert recall.recall_with_positive(5) == 1.0


def test_without_a_drive_to_leave_out_its_next_frame_counts() -> None:
    """0 and 1 find each other, 2 finds 3, 80 m on."""
    recall = recall_of_places(directions(0, 10, 50, 30), on_a_line(0, 10, 20, 100), ALONE)
    assert (recall.hits[1], recall.with_positive) == (2, 3)


def test_an_image_without_a_descriptor_finds_nothing_and_is_not_found() -> None:
    descriptors = directions(0, 10, 50, 30)
    descriptors[2] = 0
    recall = recall_of_places(descriptors, on_a_line(0, 10, 20, 100), BESIDE)
    assert (recall.queries, recall.with_positive, recall.hits[20]) == (4, 3, 0)


@pytest.mark.parametrize("count", [0, 1])
def test_one_image_or_none_has_nothing_to_find(count: int) -> None:
    places = on_a_line(*[0.0] * count, headings=(0.0,) * count)
    recall = recall_of_places(np.ones((count, 2), np.float32), places, ALONE[:count])
    assert (recall.queries, recall.with_positive, recall.hits[1]) == (count, 0, 0)
