"""PairImages alone."""

from __future__ import annotations

import itertools
from functools import partial

import pytest

from tests.transforms.alone import BLANK, FEATURES, Atlas, extract, pair
from vladmap.atlas import layout
from vladmap.atlas.shard_lists import ListedShard, commit_shard_list
from vladmap.transforms.rerank import RerankSettings

pytestmark = pytest.mark.medium


def pairs_of(atlas: Atlas) -> dict[tuple[str, str], dict]:
    """Rows of `pairs/` by the names of their two photographs, the first by name first."""
    names = {image: name for name, image in atlas.ids().items()}
    rows = [row for table in atlas.tables("pair") for row in table.to_pylist()]
    keyed = [(tuple(sorted((names[row["image_id_a"]], names[row["image_id_b"]]))), row)
             for row in rows]  # fmt: skip
    assert len(dict(keyed)) == len(keyed)  # each unordered pair once, in all shards together
    return dict(keyed)


def test_every_neighbour_in_a_drive_is_a_pair_across_shards_but_not_across_drives(
    atlas: Atlas,
) -> None:
    entries, _ = atlas.run(pair)
    assert len(entries) == 5
    in_sequence = {names for names, row in pairs_of(atlas).items() if "sequence" in row["sources"]}
    drives = [[f"a_{number:02d}.jpg" for number in range(8)],
              [f"b_{number:02d}.jpg" for number in range(8, 12)]]  # fmt: skip
    for drive in drives:
        for first, second in itertools.pairwise(drive):
            assert (first, second) in in_sequence
    assert not any(a[0] == "a" and b[0] == "b" for a, b in in_sequence)


def test_near_pairs_are_within_reach_and_others_may_be_anywhere(atlas: Atlas) -> None:
    atlas.run(pair)
    rows = pairs_of(atlas)
    near = [row["gps_distance_m"] for row in rows.values() if "near" in row["sources"]]
    assert near
    assert max(near) <= 20.0 + 2 * (2 * 4.0**2) ** 0.5  # reach, and twice the GPS errors combined
    anywhere = [row["gps_distance_m"] for row in rows.values() if "global" in row["sources"]]
    assert None in anywhere  # a photograph without a position


def test_an_image_without_a_descriptor_has_no_pair_and_costs_no_other(atlas: Atlas) -> None:
    atlas.run(pair)
    named = {name for names in pairs_of(atlas) for name in names}
    assert BLANK not in named
    assert "e_copy.jpg" not in named  # an exact duplicate
    assert named == set(atlas.ids()) - {BLANK, "e_copy.jpg"}


def test_re_ranking_keeps_the_best_by_features_and_notes_their_score(atlas: Atlas) -> None:
    entries, _ = atlas.run(extract)
    listed = [
        ListedShard(shard, entry.file.path, entry.file.rows, entry.content)
        for shard, entry in entries.items()
    ]
    evidence = commit_shard_list(str(atlas.root), "evidence", listed)
    rerank = RerankSettings("features", 5, FEATURES, layout.features_folder(FEATURES), evidence)
    before = pairs_of(atlas)
    entries, _ = atlas.run(partial(pair, rerank=rerank))
    after = pairs_of(atlas)
    scored = {names: row["patch_score"] for names, row in after.items()
              if row["patch_score"] is not None}  # fmt: skip
    assert scored
    assert set(scored) == {names for names, row in after.items() if "global" in row["sources"]}
    assert all(row["patch_score"] is None for row in before.values())
    # Crops of one wall that overlap have inliers; the last of a drive sees its neighbour best.
    assert max(scored.values()) > 20
    inputs = {key for entry in entries.values() for key in entry.inputs}
    assert any(key.startswith("features/") for key in inputs)
