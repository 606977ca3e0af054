"""Whether matches lie where other pairs put their points, worked out on a line of cameras."""

from __future__ import annotations

import numpy as np

from vladmap.mapping.view_graph.depths import pair_depths
from vladmap.mapping.view_graph.pairs import MatchedPairs
from vladmap.mapping.view_graph.placed import placed_inliers

HOUSE_M = 10.0


def pairs_of(houses_off: int) -> tuple[MatchedPairs, np.ndarray]:
    """Three cameras that look ahead, 0, 3 and 9 m along a street, and their three pairs.

    All see ten points of a house; the last pair takes the house for the one `houses_off` further.
    """
    along = np.array([0.0, 3.0, 9.0])
    rng = np.random.default_rng(0)
    points = np.stack(
        [rng.choice([-6.0, 6.0], 10), rng.uniform(-2, 4, 10), rng.uniform(22, 28, 10)], axis=1
    )
    first, second = np.array([0, 1, 0]), np.array([1, 2, 2])
    rays = []
    for pair, (a, b) in enumerate(zip(first, second, strict=True)):
        shift = houses_off * HOUSE_M if pair == 2 else 0.0
        seen_a = points - [0.0, 0.0, along[a]]
        seen_b = points - [0.0, 0.0, along[b] - shift]
        rays.append((seen_a / seen_a[:, 2:], seen_b / seen_b[:, 2:]))
    every = np.arange(10)
    moved = np.stack([np.zeros(3), np.zeros(3), along[first] - along[second]], axis=1)
    pairs = MatchedPairs(
        3, first, second, np.tile(np.eye(3), (3, 1, 1)), moved, np.full(3, 420.0),
        np.repeat([0, 1, 2], 10),
        np.concatenate([every, 10 + every, every]),
        np.concatenate([10 + every, 20 + every, 20 + every]),
        np.concatenate([ray for ray, _ in rays]), np.concatenate([ray for _, ray in rays]),
    )  # fmt: skip
    return pairs, moved


def counted(houses_off: int, telling: list[bool]) -> tuple[list[int], list[int]]:
    pairs, moved = pairs_of(houses_off)
    depths = pair_depths(pairs, pairs.rotation, moved)
    placed, known = placed_inliers(
        pairs, depths, pairs.rotation, moved, np.full(3, 0.5), np.array(telling)
    )
    return placed.tolist(), known.tolist()


def test_all_matches_of_true_pairs_lie_where_the_others_put_them() -> None:
    assert counted(0, [True, True, True]) == ([20, 20, 20], [20, 20, 20])


def test_no_match_a_house_off_does_though_all_lie_on_their_epipolar_lines() -> None:
    placed, known = counted(1, [True, True, False])
    assert known[2] == 20
    assert placed[2] == 0
    # The first pair's own depths say nothing of itself: only the second one's, at its second end.
    assert known[:2] == [10, 10]
    assert placed[:2] == [10, 10]


def test_without_another_telling_pair_nothing_is_known() -> None:
    assert counted(0, [False, False, False]) == ([0, 0, 0], [0, 0, 0])
    assert counted(0, [False, False, True])[1][2] == 0
