from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vladmap.models.training.mining import Cache, draw_negatives, mine


def towards(*degrees: float) -> NDArray[np.float32]:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def rows(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, np.int64)


def test_negatives_are_drawn_without_what_is_near() -> None:
    near = rows(2, 3, 4)
    drawn = draw_negatives(100, near, 20, (0, 1))
    assert len(set(drawn.tolist())) == 20
    assert not set(drawn.tolist()) & {2, 3, 4}
    assert drawn.tolist() == sorted(drawn.tolist())
    assert np.array_equal(drawn, draw_negatives(100, near, 20, (0, 1)))
    assert not np.array_equal(drawn, draw_negatives(100, near, 20, (0, 2)))
    assert draw_negatives(100, near, 20, (0, 1), among=rows(1, 2, 5)).tolist() == [1, 5]


def test_a_tuple_worked_out_by_hand() -> None:
    # One query at 0 degrees. Rows 10, 20, 30 of the database may show its place, at 50, 5 and 20
    # degrees; the negatives 40, 50, 60, 70 look like it by 30, 1, 90 and 10 degrees.
    cache = Cache(
        queries=rows(7),
        query_descriptors=towards(0),
        database=rows(10, 20, 30, 40, 50, 60, 70),
        database_descriptors=towards(50, 5, 20, 30, 1, 90, 10),
    )
    # 50 and 70 are the hardest of those drawn; of the round before come 60, and 50 once more.
    tuples, remembered = mine(
        cache,
        potential=[rows(10, 20, 30)],
        sampled=[rows(40, 50, 70)],
        remembered=np.array([[50, 60]]),
        positives=2,
        hardest=2,
    )
    assert tuples.queries.tolist() == [7]
    assert tuples.positives.tolist() == [[20, 30]]
    assert tuples.negatives.tolist() == [[50, 70, -1, 60]]
    assert remembered.tolist() == [[50, 70]]


def test_a_hard_negative_is_remembered_though_it_is_not_drawn_again() -> None:
    cache = Cache(rows(0), towards(0), rows(1, 2, 3), towards(40, 50, 2))
    nothing = np.array([[-1, -1]])
    first, remembered = mine(cache, [rows(1)], [rows(2, 3)], nothing, hardest=2)
    assert first.negatives.tolist() == [[3, 2, -1, -1]]
    second, _ = mine(cache, [rows(1)], [rows(2)], remembered, hardest=2)
    assert second.negatives.tolist() == [[2, -1, 3, -1]]


def test_queries_with_few_candidates_have_short_tuples() -> None:
    cache = Cache(rows(0, 1), towards(0, 90), rows(0, 1), towards(5, 80))
    nothing = np.full((2, 2), -1)
    tuples, _ = mine(cache, [rows(0), rows(1)], [rows(1), rows()], nothing, 2, 2)
    assert tuples.positives.tolist() == [[0, -1], [1, -1]]
    assert tuples.negatives.tolist() == [[1, -1, -1, -1], [-1, -1, -1, -1]]
    assert tuples.take(slice(1, 2)).queries.tolist() == [1]
