"""Only shards with verdicts are read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vladmap.atlas.judged_views import judged_views


def test_a_shard_of_an_older_version_is_left_out_and_the_others_stay_in_order(
    tmp_path: Path,
) -> None:
    paths = [str(tmp_path / name) for name in ("a", "b", "c")]
    pq.write_table(pa.table({"image_id_a": ["1"], "verdict": ["kept"], "x": [1]}), paths[0])
    pq.write_table(pa.table({"image_id_a": ["2"], "x": [2]}), paths[1])
    pq.write_table(
        pa.table({"image_id_a": ["3"], "verdict": pa.nulls(1, pa.string()), "x": [3]}), paths[2]
    )
    found = list(judged_views(paths, ["verdict", "image_id_a"]))
    assert [table.to_pylist() for table in found] == [
        [{"verdict": "kept", "image_id_a": "1"}],
        [{"verdict": None, "image_id_a": "3"}],
    ]
