"""What every transform keeps: the same bytes when run twice, and counters of its stage."""

from __future__ import annotations

import pytest

from tests.transforms.alone import STEPS, Atlas, Counters, files

pytestmark = pytest.mark.medium

COUNTERS = {
    "scan": {"vladmap.scan/images": 17, "vladmap.scan/rejects": 2},
    "organise": {"vladmap.ingest/images": 15, "vladmap.ingest/rejects": 2},
    "learn": {"vladmap.vocabulary/images": 15},
    "describe": {
        "vladmap.describe/images": 13, "vladmap.describe/rejects": 1,
        "vladmap.describe/num_inferences": 14,
    },
    "train": {"vladmap.index/vectors_of_training": 10},
    "add": {"vladmap.index/vectors": 13},
    "add_smoothed": {"vladmap.index/vectors_smoothed": 13},
    "merge_index": {"vladmap.index/vectors_merged": 13},
    "extract": {"vladmap.verify/images": 13, "vladmap.verify/rejects": 1},
    "cameras": {"vladmap.cameras/images": 8},
}  # fmt: skip
"""Of a collection of 17 files: 2 are no photographs, 1 is a duplicate, 1 has nothing in it."""

Made = tuple[Atlas, dict[str, Counters], dict[str, bytes]]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_a_transform_that_runs_again_writes_the_same_bytes(made: Made, atlas: Atlas, step) -> None:
    entries, _ = atlas.run(step)
    assert entries
    assert files(atlas.root) == made[2]


@pytest.mark.parametrize("name", sorted(COUNTERS))
def test_counters_stand_under_the_stages_name(made: Made, name: str) -> None:
    assert made[1][name] == COUNTERS[name]


def test_pairs_are_counted_as_they_are_written(made: Made) -> None:
    atlas, counters, _ = made
    pairs = sum(table.num_rows for table in atlas.tables("pair"))
    views = atlas.ledger("verify").values()
    assert counters["pair"] == {"vladmap.pair/pairs": pairs}
    assert counters["verify"] == {
        "vladmap.verify/pairs": sum(entry.counts["pairs"] for entry in views),
        "vladmap.verify/verified": sum(entry.counts["verified"] for entry in views),
    }
    assert counters["verify"]["vladmap.verify/verified"] > 0
