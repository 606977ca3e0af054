"""Patches as a table of `patches/`, and back."""

from __future__ import annotations

import numpy as np

from vladmap.models.aggregations.patches import patch_centres
from vladmap.models.patch_table import patch_table, read_patches
from vladmap.retrieval.stored_patches import StoredPatches

SIZE, STRIDE, DIMENSION = 2, 16, 3


def patches(rows: int, columns: int, seed: int) -> StoredPatches:
    """Of a map of `rows` x `columns` cells, N = 1."""
    rng = np.random.default_rng(seed)
    centres = patch_centres(rows, columns, SIZE, STRIDE).numpy()
    count = len(centres)
    return StoredPatches(
        [rng.integers(-127, 128, (1, count, DIMENSION)).astype(np.int8)],
        [centres],
        [rng.random((1, count), np.float32)],
    )


def test_images_of_several_sizes_come_back_as_they_were_by_image_id() -> None:
    rows = [("c", patches(4, 6, 1)), ("a", patches(6, 4, 2)), ("b", patches(2, 2, 3))]
    table = patch_table(rows, SIZE, STRIDE, "model", "fingerprint")
    assert table["image_id"].to_pylist() == ["a", "b", "c"]
    assert table["rows"].to_pylist() == [5, 1, 3]
    assert table["columns"].to_pylist() == [3, 1, 5]
    found = read_patches(table)
    for image, given in rows:
        for one, other in zip(found[image], given, strict=True):
            assert np.array_equal(one[0], other[0])


def test_no_images_make_a_table_without_rows() -> None:
    table = patch_table([], SIZE, STRIDE, "model", "fingerprint")
    assert table.num_rows == 0
    assert read_patches(table) == {}
