"""Whether a map holds its pairs, on maps small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from vladmap.mapping.point_agreement import VIEW_COLUMNS, PairPoints, pair_points
from vladmap.mapping.tile_arrays import TileArrays
from vladmap.schemas import tables

# Two photographs at 0 and 1 m; five points. a sees points 0 to 2 with keypoints 5 to 7, b sees
# points 0, 3 and 4 with keypoints 1 to 3: point 3 is 2 m beside point 1, point 4 is 4 m from 2.
PLACES = np.array([[0, 0, 9], [5, 0, 9], [9, 0, 9], [7, 0, 9], [13, 0, 9]], float)
CENTRES = np.array([[0, 0, 0], [1, 0, 0]], float)
MAP = TileArrays(
    np.array([3, 8]),
    CENTRES,
    np.stack([np.eye(3)] * 2),
    np.array([3, 3]),
    PLACES,
    np.array([3, 3, 3, 8, 8, 8]),
    np.array([5, 6, 7, 1, 2, 3]),
    np.array([0, 1, 2, 0, 3, 4]),
)
ROWS = {"a": 0, "b": 1}


def views(*rows: tuple[str, str, list[list[int]], str | None]) -> pa.Table:
    schema = pa.schema([tables.TWO_VIEWS.field(name) for name in VIEW_COLUMNS])
    return pa.Table.from_pylist(
        [dict(zip(VIEW_COLUMNS, row, strict=True)) for row in rows], schema=schema
    )


def test_matches_are_one_point_or_two_and_the_gap_is_their_median_distance() -> None:
    # The last match is of a keypoint that is no point in the map.
    table = views(("a", "b", [[5, 1], [6, 2], [7, 3], [9, 1]], "kept"))
    found = pair_points(MAP, ROWS, [table])
    assert (found.first.tolist(), found.second.tolist()) == ([0], [1])
    assert (found.same.tolist(), found.apart.tolist()) == ([1], [2])
    assert found.gap.tolist() == [3.0]  # between 2 and 4
    # Of points 3 and 4 from b: 12 m across and 9 m ahead are 15 m.
    assert found.depth[0] == pytest.approx((np.hypot(6, 9) + 15) / 2)


def test_untrusted_unjudged_and_foreign_pairs_are_left_out() -> None:
    table = views(
        ("a", "b", [[5, 1]], "far"), ("a", "b", [[5, 1]], None), ("a", "z", [[5, 1]], "kept")
    )
    assert len(pair_points(MAP, ROWS, [table, views()]).first) == 0


def test_shards_follow_each_other() -> None:
    tables_ = [views(("a", "b", [[5, 1]], "kept")), views(("b", "a", [[2, 6], [1, 5]], "kept"))]
    found = pair_points(MAP, ROWS, tables_)
    assert (found.same.tolist(), found.apart.tolist()) == ([1, 1], [0, 1])
    assert np.isnan(found.gap[0])


@pytest.mark.parametrize(
    ("same", "apart", "gap", "depth", "held", "torn"),
    [
        (20, 3, 4.0, 10.0, True, False),  # most are one point
        (0, 20, 4.0, 10.0, False, True),  # none is, and they are 4 m apart
        (0, 20, 0.1, 10.0, False, False),  # twice the same surface, within its noise
        (0, 20, 4.0, 200.0, False, False),  # so far away that depth is not known to 4 m
        (0, 5, 4.0, 10.0, False, False),  # too few to say
        (6, 50, 4.0, 10.0, False, False),  # 11 % are one point: neither
    ],
)
def test_a_pair_is_held_or_torn(
    same: int, apart: int, gap: float, depth: float, held: bool, torn: bool
) -> None:
    one = [np.array([value]) for value in (0, 1, same, apart)]
    pairs = PairPoints(*one, np.array([gap]), np.array([depth]))
    assert (pairs.held().tolist(), pairs.torn().tolist()) == ([held], [torn])
