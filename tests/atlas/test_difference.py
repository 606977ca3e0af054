"""Two atlases compared: what counts as equal and what is said where they are not."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vladmap.atlas import difference as compare

SHARD = "images/cell=8a/one.parquet"


def _table(ids: list[str], values: list[float], **metadata: str) -> pa.Table:
    field = pa.field("value", pa.float64(), metadata={"unit": "m"})
    schema = pa.schema([pa.field("image_id", pa.string()), field], metadata=metadata)
    return pa.table({"image_id": ids, "value": values}, schema=schema)


def _atlas(root: Path, table: pa.Table, model: bytes = b"model") -> Path:
    (root / SHARD).parent.mkdir(parents=True)
    pq.write_table(table, root / SHARD)
    (root / "model" / "0").mkdir(parents=True)
    (root / "model" / "0" / "images.bin").write_bytes(model)
    return root


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return _atlas(tmp_path / "a", _table(["x", "y"], [1.0, float("nan")], version="1"))


def _differences(a: Path, b: Path) -> dict[str, tuple[str, ...]]:
    return {table.name: table.differences for table in compare.compare_atlases(a, b)}


def test_equal_atlases_are_equal_and_exit_with_0(
    a: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    b = _atlas(tmp_path / "b", _table(["x", "y"], [1.0, float("nan")], version="1"))
    assert compare.main([str(a), str(b)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["images", "1", "files", "2", "rows", "equal"]
    assert lines[-1] == "all 2 tables equal"


def test_the_order_of_rows_does_not_matter_and_nan_equals_nan(a: Path, tmp_path: Path) -> None:
    b = _atlas(tmp_path / "b", _table(["y", "x"], [float("nan"), 1.0], version="1"))
    assert _differences(a, b) == {"images": (), "model": ()}


def test_one_bit_in_one_value_is_a_difference(
    a: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    b = _atlas(tmp_path / "b", _table(["x", "y"], [1.0 + 2**-52, float("nan")], version="1"))
    assert _differences(a, b)["images"] == (f"{SHARD}: column value",)
    assert compare.main([str(a), str(b)]) == 1
    assert "DIFFERENT" in capsys.readouterr().out


def test_metadata_of_a_schema_and_of_a_field_count(a: Path, tmp_path: Path) -> None:
    values = ["x", "y"], [1.0, float("nan")]
    b = _atlas(tmp_path / "b", _table(*values, version="2"))
    assert _differences(a, b)["images"] == (f"{SHARD}: metadata version",)
    plain = _table(*values, version="1")
    schema = plain.schema.set(1, pa.field("value", pa.float64()))
    c = _atlas(tmp_path / "c", plain.cast(schema))
    assert _differences(a, c)["images"] == (f"{SHARD}: field value: its type or metadata",)


def test_a_missing_row_a_missing_shard_and_another_model_are_differences(
    a: Path, tmp_path: Path
) -> None:
    b = _atlas(tmp_path / "b", _table(["x"], [1.0], version="1"), model=b"other")
    pq.write_table(_table(["z"], [3.0]), b / "images" / "cell=8a" / "two.parquet")
    assert _differences(a, b) == {
        "images": (f"images/cell=8a/two.parquet is only in {b}", f"{SHARD}: 2 and 1 rows"),
        "model": ("model/0/images.bin: bytes",),
    }


def test_a_folder_without_tables_is_not_equal_to_anything(
    a: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main([str(a), str(tmp_path / "nothing")]) == 2
    assert "holds no tables" in capsys.readouterr().err
