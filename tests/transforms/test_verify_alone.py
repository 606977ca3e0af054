"""ExtractFeatures, ChooseCameras and VerifyPairs alone."""

from __future__ import annotations

import json

import pyarrow.compute as pc
import pytest

from tests.transforms.alone import BLANK, FEATURES, Atlas, cameras, extract, verify
from vladmap.atlas import layout, storage

pytestmark = pytest.mark.medium


def drop_features(atlas: Atlas, name: str) -> str:
    """Take the features of one photograph out of the atlas; returns its image id."""
    image = atlas.ids()[name]
    for shard in atlas.ledger("features"):
        path = layout.features(FEATURES, shard)
        table = atlas.table(path)
        storage.commit_table(
            str(atlas.root), path, table.filter(pc.not_equal(table["image_id"], image))
        )
    return image


def views(atlas: Atlas) -> dict[tuple[str, str], dict]:
    rows = [row for table in atlas.tables("verify") for row in table.to_pylist()]
    return {(row["image_id_a"], row["image_id_b"]): row for row in rows}


def test_a_photograph_without_features_is_rejected_alone(atlas: Atlas) -> None:
    entries, _ = atlas.run(extract)
    assert len(entries) == 5
    assert atlas.rejects("features") == {BLANK: "no_features"}
    images = [
        image for table in atlas.tables("features") for image in table["image_id"].to_pylist()
    ]
    ids = atlas.ids()
    assert sorted(images) == sorted(set(ids.values()) - {ids[BLANK], ids["e_copy.jpg"]})


def test_a_pair_of_an_image_without_features_costs_itself_alone(atlas: Atlas) -> None:
    before = views(atlas)
    transform, tasks, stage = verify(atlas)
    image = drop_features(atlas, "a_03.jpg")
    atlas.run(lambda _: (transform, tasks, stage))
    after = views(atlas)
    gone = {ends for ends in before if image in ends}
    assert gone
    assert set(after) == set(before) - gone
    assert all(after[ends] == before[ends] for ends in after)


def test_pairs_across_shards_are_verified_with_features_of_both(atlas: Atlas) -> None:
    atlas.run(verify)
    shard_of = {
        image: shard
        for shard in atlas.ledger("features")
        for image in atlas.table(layout.features(FEATURES, shard))["image_id"].to_pylist()
    }
    verified = {ends for ends, row in views(atlas).items() if len(row["inliers"])}
    assert any(shard_of[a] != shard_of[b] for a, b in verified)
    assert any(shard_of[a] == shard_of[b] for a, b in verified)


def test_a_camera_is_chosen_without_an_image_that_has_no_features(atlas: Atlas) -> None:
    transform, tasks, stage = cameras(atlas)
    path = atlas.root / tasks[0].output
    before = json.loads(path.read_text())
    drop_features(atlas, "b_11.jpg")
    entries, _ = atlas.run(lambda _: (transform, tasks, stage))
    after = json.loads(path.read_text())
    assert after["key"] == before["key"]
    assert after["camera"]["model"] == before["camera"]["model"]
    assert 0 < entries[tasks[0].shard].counts["images"] <= 8
