"""A fair sample of a collection's photographs, drawn shard after shard."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from vladmap.atlas import storage
from vladmap.atlas.photographs import SHARD_ROWS, lowest_rows


@pytest.mark.parametrize("count", [1, 7, 39, 40, 100])
def test_the_rows_of_the_lowest_ids_are_drawn_from_all_shards_without_duplicates(
    count: int, tmp_path: Path
) -> None:
    """By sorting all rows at once; 50 images in shards of 0 to 17, each fifth a duplicate."""
    ids = [f"{number:032x}" for number in np.random.default_rng(0).permutation(50)]
    rows = [
        {
            "image_id": image, "uri": f"/{image}.jpg", "content_hash": "0" * 32,
            "width": 4, "height": 3, "duplicate_of": ids[0] if at % 5 == 4 else None,
        }
        for at, image in enumerate(ids)
    ]  # fmt: skip
    cuts = [0, 17, 17, 33, 50]
    paths = []
    for start, end in itertools.pairwise(cuts):
        paths.append(f"images/{len(paths)}.parquet")
        table = pa.Table.from_pylist(rows[start:end], schema=SHARD_ROWS)
        storage.commit_table(str(tmp_path), paths[-1], table)
    own = sorted((row for row in rows if row["duplicate_of"] is None), key=lambda r: r["image_id"])
    sample = lowest_rows(str(tmp_path), iter(paths), count)
    assert sample.schema.equals(SHARD_ROWS)
    assert sample.to_pylist() == own[:count]
