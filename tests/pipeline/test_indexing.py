"""The sample that an index is trained on, and that its factory can be trained on it."""

from __future__ import annotations

import itertools

import pytest

from vladmap.pipeline.indexing import TRAINING_ROWS, IndexPlan
from vladmap.retrieval.faiss_index import choose_factory
from vladmap.schemas.records import FileRef, LedgerEntry


def plan(shards: int, rows: int) -> IndexPlan:
    names = [f"{number:05d}" for number in range(shards)]
    descriptors = {
        name: LedgerEntry(
            "describe", name, "", {}, (FileRef(f"d/{name}.parquet", rows, 1, "0" * 32),), ""
        )
        for name in names
    }
    return IndexPlan("vlad", descriptors, 512, "", "Flat", shards * rows, "")


def test_the_sample_comes_from_all_over_the_collection() -> None:
    """1,000 shards of 100: every other one, from the first to the last."""
    read = [int(path[2:7]) for _, path in plan(1000, 100).training_task().reads]
    assert len(read) == TRAINING_ROWS // 100
    assert (read[0], read[-1]) == (0, 999)
    assert max(b - a for a, b in itertools.pairwise(read)) <= 3


def test_all_shards_are_read_where_they_are_few() -> None:
    assert len(plan(3, 100).training_task().reads) == 3


@pytest.mark.parametrize("count", [20_000, 100_000, 999_999, 10**6, 10**8])
def test_a_collection_of_any_size_has_rows_enough_to_train_its_lists(count: int) -> None:
    lists = int(choose_factory(count, 512).removeprefix("IVF").split(",")[0].split("_")[0])
    assert lists <= min(count, TRAINING_ROWS)
