from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from vladmap.retrieval.candidates import (
    GLOBAL,
    NEAR,
    SEQUENCE,
    Candidates,
    Gallery,
    distances_m,
    known_candidates,
    merge_candidates,
    near_candidates,
)
from vladmap.schemas import tables

DEGREE_M = 111_195.0  # of a great circle on the mean sphere


def _gallery(
    names: str,
    latitude: list[float],
    longitude: list[float],
    vectors: NDArray[np.float32] | None = None,
    accuracy_m: float = 0.0,
) -> Gallery:
    count = len(names)
    if vectors is None:
        vectors = np.random.default_rng(len(names)).normal(size=(count, 6)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Gallery(
        np.array(list(names)),
        vectors,
        np.array(latitude),
        np.array(longitude),
        np.full(count, accuracy_m),
    )


def _pairs(candidates: Candidates) -> list[tuple[str, str]]:
    return list(zip(candidates.query.tolist(), candidates.other.tolist(), strict=True))


def test_near_candidates_are_those_of_a_loop_over_all_pairs() -> None:
    generator = np.random.default_rng(0)
    names = "abcdefghijklmnopqrstuvwxyz"
    gallery = _gallery(
        names,
        (48 + 0.002 * generator.random(26)).tolist(),
        (11 + 0.003 * generator.random(26)).tolist(),
    )
    near = near_candidates(gallery, gallery, 80.0, 3)
    expected = []
    for i in range(26):
        scored = []
        for j in range(26):
            north = math.radians(gallery.latitude[j] - gallery.latitude[i])
            east = math.radians(gallery.longitude[j] - gallery.longitude[i])
            east *= math.cos(math.radians(gallery.latitude[i]))
            if i != j and 6_371_008.8 * math.hypot(north, east) <= 80.0:
                scored.append((-float(gallery.vectors[i] @ gallery.vectors[j]), j))
        expected += [(names[i], names[j]) for _, j in sorted(scored)[:3]]
    assert sorted(_pairs(near)) == sorted(expected)
    assert len(expected) > 20


def test_reach_crosses_the_antimeridian_and_the_date_line_has_no_width() -> None:
    gallery = _gallery("ab", [-17.0, -17.0], [179.9999, -179.9999])
    near = near_candidates(gallery, gallery, 50.0, 5)
    assert _pairs(near) == [("a", "b"), ("b", "a")]
    expected = 0.0002 * DEGREE_M * math.cos(math.radians(17))
    assert near.distance_m == pytest.approx([expected, expected], rel=1e-3)


def test_an_image_without_a_position_is_near_nothing() -> None:
    gallery = _gallery("abc", [1.0, math.nan, 1.0], [2.0, 2.0, math.nan])
    assert _pairs(near_candidates(gallery, gallery, 1e9, 5)) == []


def test_what_gps_does_not_know_widens_the_reach() -> None:
    # 100 m apart, reach 50 m: two errors of 20 m widen it to 50 + 2 * 28.3 m.
    north = [0.0, 100 / DEGREE_M]
    for accuracy, expected in ((0.0, 0), (10.0, 0), (20.0, 2)):
        gallery = _gallery("ab", north, [0.0, 0.0], accuracy_m=accuracy)
        assert len(_pairs(near_candidates(gallery, gallery, 50.0, 5))) == expected


def test_reach_ends_where_it_says() -> None:
    gallery = _gallery("ab", [0.0, 0.001], [0.0, 0.0])
    distance = float(distances_m(gallery, gallery, np.array([0]), np.array([1]))[0])
    assert distance == pytest.approx(0.001 * DEGREE_M, rel=1e-3)
    assert len(near_candidates(gallery, gallery, distance + 0.01, 5).query) == 2
    assert len(near_candidates(gallery, gallery, distance - 0.01, 5).query) == 0


def test_an_empty_gallery_has_no_candidates() -> None:
    gallery = _gallery("ab", [0.0, 0.0], [0.0, 0.0])
    empty = _gallery("", [], [])
    assert len(near_candidates(gallery, empty, 10.0, 5).query) == 0
    assert len(near_candidates(empty, gallery, 10.0, 5).query) == 0


def test_known_pairs_lose_those_without_a_descriptor() -> None:
    gallery = _gallery("ac", [0.0, 0.0], [0.0, 0.0])
    known = known_candidates(SEQUENCE, gallery, gallery, [("a", "b"), ("a", "c"), ("z", "a")])
    assert _pairs(known) == [("a", "c")]
    assert known.similarity[0] == pytest.approx(float(gallery.vectors[0] @ gallery.vectors[1]))


def candidates_of(source: str, rows: list[tuple[str, str, float]]) -> Candidates:
    query, other, similarity = zip(*rows, strict=True)
    return Candidates(
        source,
        np.array(query),
        np.array(other),
        np.array(similarity, np.float32),
        np.full(len(rows), math.nan),
    )


def test_merging_keeps_every_source_and_the_best_rank_of_an_unordered_pair() -> None:
    table = merge_candidates(
        [
            candidates_of(NEAR, [("c", "a", 0.9), ("c", "b", 0.8), ("b", "c", 0.8)]),
            candidates_of(GLOBAL, [("c", "d", 0.95), ("c", "b", 0.8)]),
            candidates_of(SEQUENCE, [("c", "b", 0.8), ("a", "b", 0.1)]),
        ],
        near=5,
    )
    assert table.schema.equals(tables.PAIRS)
    rows = [(r["image_id_a"], r["image_id_b"], r["sources"], r["rank"]) for r in table.to_pylist()]
    assert rows == [
        ("a", "b", ["sequence"], None),
        ("a", "c", ["near"], 0),
        # first among b's near ones, second among c's near and global ones
        ("b", "c", ["global", "near", "sequence"], 0),
        ("c", "d", ["global"], 0),
    ]
    assert table["similarity"].to_pylist() == pytest.approx([0.1, 0.9, 0.8, 0.95])
    assert table["gps_distance_m"].null_count == 4


def test_merging_keeps_the_best_near_ones_of_several_galleries() -> None:
    table = merge_candidates(
        [
            candidates_of(NEAR, [("q", "a", 0.5), ("q", "b", 0.4)]),
            candidates_of(NEAR, [("q", "c", 0.45)]),
        ],
        near=2,
    )
    assert table["image_id_a"].to_pylist() == ["a", "c"]


def test_merging_nothing_is_an_empty_table() -> None:
    gallery = _gallery("", [], [])
    assert merge_candidates([near_candidates(gallery, gallery, 1, 1)], 5).equals(
        tables.PAIRS.empty_table()
    )


def test_of_two_scores_of_a_pair_that_of_the_greater_query_counts_whatever_their_order() -> None:
    """Matches differ a little from side to side; the order of a mapping may differ in each run."""
    parts = [candidates_of(GLOBAL, [("a", "b", 0.9), ("b", "a", 0.9)])]
    scores = {("a", "b"): 37.0, ("b", "a"): 40.0}
    for given in (scores, dict(reversed(scores.items()))):
        assert merge_candidates(parts, 5, given)["patch_score"].to_pylist() == [40.0]


def test_the_order_of_the_parts_does_not_matter() -> None:
    parts = [
        candidates_of(NEAR, [("c", "a", 0.9), ("b", "a", 0.7)]),
        candidates_of(GLOBAL, [("c", "a", 0.9), ("d", "a", 0.2)]),
    ]
    assert merge_candidates(parts, 3).equals(merge_candidates(parts[::-1], 3))
