import numpy as np

from vladmap.mapping.graph import connected_components


def test_components_are_named_by_their_smallest_node() -> None:
    first, second = np.array([5, 3, 8]), np.array([3, 1, 9])
    expected = [0, 1, 2, 1, 4, 1, 6, 7, 8, 8]
    np.testing.assert_array_equal(connected_components(10, first, second), expected)


def test_a_long_chain_is_one_component() -> None:
    order = np.random.default_rng(0).permutation(100_000)
    label = connected_components(len(order), order[:-1], order[1:])
    assert (label == 0).all()


def test_no_edges_leave_every_node_alone() -> None:
    none = np.zeros(0, np.int64)
    np.testing.assert_array_equal(connected_components(3, none, none), [0, 1, 2])
