"""ScanPhotos and OrganiseImages alone."""

from __future__ import annotations

from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.transforms.alone import BLANK, SHARD_IMAGES, Atlas, image_shards, organise, scan
from vladmap.photos.cells import assign_cells
from vladmap.schemas.ingest_tables import HEADERS

pytestmark = pytest.mark.medium


def test_a_header_is_read_of_each_file_and_a_bad_one_costs_itself_alone(atlas: Atlas) -> None:
    entries, _ = atlas.run(scan)
    assert len(entries) == 3
    rows = pa.concat_tables([atlas.table(entry.file.path) for entry in entries.values()])
    assert rows.schema.equals(HEADERS)
    reasons = dict(zip(rows["path"].to_pylist(), rows["reason"].to_pylist(), strict=True))
    bad = {name: reason for name, reason in reasons.items() if reason}
    assert bad == {"f_cut.jpg": "truncated", "g_text.jpg": "not_an_image"}
    good = rows.filter(pc.is_null(rows["reason"]))
    assert good.num_rows == 15
    assert set(good["width"].to_pylist()) == {160}


def test_images_lie_in_bounded_shards_of_one_cell_each(atlas: Atlas) -> None:
    atlas.run(organise)
    shards = image_shards(atlas)
    assert len({shard.split("-")[2] for shard in shards}) == 3  # two cells, and `none`
    for entry in shards.values():
        table = atlas.table(entry.file.path)
        assert table.num_rows <= SHARD_IMAGES
        cells = assign_cells(table["latitude"].to_pylist(), table["longitude"].to_pylist(), 8)
        assert {f"cell={cell}" for cell in cells} == {entry.file.path.split("/")[1]}
    assert atlas.rejects("ingest") == {"f_cut.jpg": "truncated", "g_text.jpg": "not_an_image"}


def test_duplicates_and_sequences_cross_chunks_and_shards(atlas: Atlas) -> None:
    atlas.run(organise)
    ids = atlas.ids()
    rows = atlas.images()
    by_name = {row["name"]: row for row in rows.to_pylist()}
    originals = {name: row["duplicate_of"] for name, row in by_name.items() if row["duplicate_of"]}
    assert originals == {"e_copy.jpg": ids["a_03.jpg"]}
    # The drive ends where it jumps by five kilometres: a_00 to a_07 (and the copy), b_08 to b_11.
    first, second = ({row["sequence_id"] for name, row in by_name.items() if name[0] == letter}
                     for letter in "ab")  # fmt: skip
    assert len(first) == len(second) == 1
    assert first != second
    order = [by_name[f"b_{number:02d}.jpg"]["sequence_index"] for number in range(8, 12)]
    assert order == [order[0] + place for place in range(4)]


def test_a_row_that_left_the_collection_costs_itself_alone(atlas: Atlas) -> None:
    def rows() -> dict[str, dict]:
        return {row["name"]: row for row in atlas.images().to_pylist()}

    before = rows()
    atlas.run(partial(organise, dead=[("g0000-00001", BLANK)]))
    after = rows()
    assert set(before) - set(after) == {BLANK}  # the last of its sequence
    assert all(after[name] == before[name] for name in after)
