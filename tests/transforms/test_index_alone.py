"""TrainIndex, AddShards, AddSmoothed and MergeIndex alone."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.transforms.alone import MODEL, Atlas, add, add_smoothed, merge_index, train
from vladmap.atlas import layout, storage
from vladmap.geodesy.wgs84 import ecef_on_ellipsoid
from vladmap.retrieval import faiss_index
from vladmap.retrieval.descriptors import descriptor_matrix, image_columns
from vladmap.retrieval.names import SIGMA_M
from vladmap.retrieval.smoothing import smooth
from vladmap.schemas.records import FileRef

pytestmark = pytest.mark.medium


def vectors(atlas: Atlas, file: FileRef) -> np.ndarray:
    """(N, D) of a part of an inverted file of plain vectors with two lists: a byte of the list's
    number, then the numbers of the vector."""
    data = (atlas.root / file.path).read_bytes()
    codes = np.frombuffer(data, np.uint8).reshape(file.rows, -1)
    assert set(codes[:, 0].tolist()) <= {0, 1}
    return np.ascontiguousarray(codes[:, 1:]).view(np.float32)


def test_an_index_is_trained_on_the_ten_lowest_ids_and_no_others(atlas: Atlas) -> None:
    output = atlas.root / layout.trained_index(MODEL)
    before = output.read_bytes()
    assert faiss_index.from_bytes(before).ntotal == 0
    transform, tasks, stage = train(atlas)
    ids = sorted(
        image for table in atlas.tables("describe") for image in table["image_id"].to_pylist()
    )

    def trained_without(image: str) -> bytes:
        for _, path in tasks[0].reads:
            table = atlas.table(path)
            rest = table.filter(pc.not_equal(table["image_id"], image))
            storage.commit_table(str(atlas.root), path, rest)
        atlas.run(lambda _: (transform, tasks, stage))
        return output.read_bytes()

    assert trained_without(ids[12]) == before
    assert trained_without(ids[0]) != before


def test_a_partial_index_holds_the_descriptors_of_its_shard(atlas: Atlas) -> None:
    entries, _ = atlas.run(add)
    assert len(entries) == 5
    for shard, entry in entries.items():
        held = vectors(atlas, entry.file)
        table = atlas.table(layout.descriptors(MODEL, shard))
        np.testing.assert_array_equal(held, descriptor_matrix(table))


def test_smoothing_in_shards_equals_smoothing_at_once(atlas: Atlas) -> None:
    entries, _ = atlas.run(add_smoothed)
    descriptors = pa.concat_tables(atlas.tables("describe"))
    images = atlas.images()
    latitude, longitude, headings = image_columns(
        descriptors, images, ("latitude", "longitude", "heading_deg")
    )
    own = descriptor_matrix(descriptors)
    expected = smooth(own, ecef_on_ellipsoid(latitude, longitude), headings, SIGMA_M)
    held = np.concatenate([vectors(atlas, entry.file) for entry in entries.values()])
    np.testing.assert_allclose(held, expected, atol=1e-6)
    placeless = np.isnan(latitude)
    assert placeless.any()
    np.testing.assert_array_equal(held[placeless], own[placeless])
    assert np.abs(held[~placeless] - own[~placeless]).max() > 0.01


def test_the_merged_index_finds_each_image_and_says_what_it_is(atlas: Atlas) -> None:
    atlas.run(merge_index)
    folder = atlas.root / layout.index_folder(MODEL)
    ids = atlas.table(layout.index_ids(MODEL))["image_id"].to_pylist()
    descriptors = pa.concat_tables(atlas.tables("describe"))
    assert ids == descriptors["image_id"].to_pylist()
    index = faiss_index.from_bytes((folder / "global.faiss").read_bytes())
    _, rows = faiss_index.search(index, descriptor_matrix(descriptors), 1)
    assert rows[:, 0].tolist() == list(range(13))
    facts = json.loads((folder / "index.json").read_text())
    assert facts["factory"] == "IVF2,Flat"
    assert (facts["count"], facts["recall"], facts["recall_queries"]) == (13, 1.0, 5)


@pytest.mark.parametrize("step", [add, add_smoothed])
def test_a_shard_without_descriptors_costs_itself_alone(atlas: Atlas, step) -> None:
    (lost,) = [shard for shard in atlas.ledger("describe") if "-none-" in shard]
    before = atlas.ledger(step(atlas)[2])
    transform, tasks, stage = step(atlas)
    path = layout.descriptors(MODEL, lost)
    storage.commit_table(str(atlas.root), path, atlas.table(path).slice(0, 0))
    after, _ = atlas.run(lambda _: (transform, tasks, stage))
    assert after[lost].file.rows == 0
    rest = set(after) - {lost}
    assert all(after[shard].file == before[shard].file for shard in rest)


@pytest.mark.parametrize("part", [layout.partial_index, layout.partial_places])
def test_a_part_of_more_or_fewer_vectors_than_images_is_not_merged(atlas: Atlas, part) -> None:
    """All behind it would be other images' vectors."""
    transform, tasks, stage = merge_index(atlas)
    path = atlas.root / part(MODEL, next(iter(atlas.ledger("describe"))))
    whole, before = path.read_bytes(), (atlas.root / tasks[0].output).read_bytes()
    size = len(whole) // atlas.tables("describe")[0].num_rows
    for data in (whole[:-size], whole + whole[:size], whole[:-1]):
        path.write_bytes(data)
        with pytest.raises(Exception, match=f"{path.name} has not one vector"):
            atlas.run(lambda _: (transform, tasks, stage))
    assert (atlas.root / tasks[0].output).read_bytes() == before
