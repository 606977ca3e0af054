"""Products of bytes: the same in integers and in float32, and those of numpy's whole numbers."""

from __future__ import annotations

import numpy as np
import pytest

from vladmap.features import products
from vladmap.features.products import best_two


def reference(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, ...]:
    whole = rows.astype(np.int64) @ columns.T.astype(np.int64)
    order = np.argsort(-whole, axis=1, kind="stable")
    nearest = order[:, 0]
    best = np.take_along_axis(whole, order[:, :1], 1)[:, 0]
    second = np.take_along_axis(whole, order[:, 1:2], 1)[:, 0]
    return nearest, best, second


@pytest.mark.parametrize("way", ["integers", "floats"])
def test_both_ways_find_the_two_nearest_of_whole_numbers(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rows than one block holds; bytes of all sizes, and equal columns among them."""
    if way == "integers":
        pytest.importorskip("torch")
        if not products.multiplies_bytes() or not products._integers_are_exact():
            pytest.skip("this CPU does not multiply bytes")
    else:
        monkeypatch.setattr(products, "multiplies_bytes", lambda: False)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (1100, 128)).astype(np.uint8)
    columns = np.concatenate([rows[:300], rows[:5], np.full((1, 128), 255, np.uint8)])
    for few in (rows, rows[:1], rows[:0]):
        for found, wanted in zip(best_two(few, columns), reference(few, columns), strict=True):
            np.testing.assert_array_equal(found, wanted)
    nearest, _, second = best_two(rows, columns[:1])
    assert set(nearest.tolist()) == {0}
    assert set(second.tolist()) == {-np.inf}


def test_arrays_that_may_not_be_written_to_are_taken_as_they_are() -> None:
    rows = np.frombuffer(bytes(range(128)) * 2, np.uint8).reshape(2, 128)
    assert not rows.flags.writeable
    assert best_two(rows, rows)[1].tolist() == [float(sum(n * n for n in range(128)))] * 2


def test_instructions_that_saturate_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def saturated(rows: np.ndarray, columns: np.ndarray):
        exact = rows.astype(np.int64) @ columns.T.astype(np.int64)
        yield slice(0, 2), np.minimum(exact, 32767), np.zeros(2, np.int32)

    monkeypatch.setattr(products, "_in_integers", saturated)
    assert not products._integers_are_exact.__wrapped__()
