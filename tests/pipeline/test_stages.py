"""The stages up to the pairs, through Beam, on small drives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.drives import write_drive
from tests.photos.bad_photos import write_bad_inputs, write_odd_inputs
from vladmap.atlas.store import AtlasStore
from vladmap.geodesy.wgs84 import ecef_on_ellipsoid
from vladmap.photos.cells import assign_cells
from vladmap.photos.ids import image_id
from vladmap.pipeline.indexing import index_factory
from vladmap.pipeline.ledgers import require
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import STAGES
from vladmap.retrieval.names import SIGMA_M
from vladmap.retrieval.smoothing import smooth
from vladmap.schemas import tables
from vladmap.schemas.rejects import UserError

pytestmark = pytest.mark.medium

UP_TO_PAIRS = ("ingest", "describe", "index", "pair")


def build(images: Path, atlas: Path, upto: int = 4, **options: Any) -> Run:
    settings = BuildOptions(
        images=str(images), atlas=str(atlas), **{"shard_images": 8, "clusters": 8, **options}
    )
    run = Run(AtlasStore.open(str(atlas), create=True), settings)
    for name in UP_TO_PAIRS[:upto]:
        STAGES[name].work(run)
    return run


def files(
    atlas: Path, *, without: tuple[str, ...] = ("atlas.json", "timings.json", "metrics.json")
) -> dict[str, bytes]:
    return {
        str(path.relative_to(atlas)): path.read_bytes()
        for path in sorted(atlas.rglob("*"))
        if path.is_file() and path.name not in without
    }


def done(run: Run) -> dict[str, int]:
    return {result.stage: result.elements for result in run.results}


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drive")
    write_drive(folder, 20)
    return folder


@pytest.fixture(scope="module")
def atlas(drive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("atlas")
    build(drive, folder)
    return folder


def test_images_are_in_shards_of_bounded_size_and_one_cell(atlas: Path) -> None:
    shards = sorted((atlas / "images").rglob("*.parquet"))
    assert sum(pq.read_metadata(shard).num_rows for shard in shards) == 20
    for shard in shards:
        table = pq.read_table(shard, partitioning=None)
        assert table.num_rows <= 8
        cells = assign_cells(table["latitude"].to_pylist(), table["longitude"].to_pylist(), 8)
        assert {f"cell={cell}" for cell in cells} == {shard.parent.name}


def test_an_image_is_named_after_its_path_and_placed_by_its_exif(atlas: Path) -> None:
    rows = {row["image_id"]: row for row in pq.read_table(atlas / "images").to_pylist()}
    row = rows[image_id("0007.jpg")]
    assert row["latitude"] == pytest.approx(48.2 + 7 * 2e-5, abs=1e-9)
    assert row["sequence_index"] == 7
    assert (row["width"], row["height"]) == (256, 192)


def test_descriptors_are_unit_vectors_of_every_image(atlas: Path) -> None:
    table = pq.read_table(atlas / "descriptors" / "netvlad-lite")
    matrix = np.stack(table["descriptor"].to_numpy())
    assert len(matrix) == 20
    np.testing.assert_allclose(np.linalg.norm(matrix, axis=1), 1, atol=1e-5)


def test_pairs_are_unordered_unique_and_hold_every_neighbour_in_the_sequence(atlas: Path) -> None:
    table = pq.read_table(atlas / "pairs")
    pairs = list(zip(table["image_id_a"].to_pylist(), table["image_id_b"].to_pylist(), strict=True))
    assert all(a < b for a, b in pairs)
    assert len(set(pairs)) == len(pairs)
    for number in range(19):
        ends = sorted(image_id(f"{at:04d}.jpg") for at in (number, number + 1))
        assert tuple(ends) in set(pairs)


def test_the_same_build_again_does_nothing(drive: Path, atlas: Path) -> None:
    before = files(atlas)
    run = build(drive, atlas)
    assert set(done(run).values()) == {0}
    assert files(atlas) == before


def test_two_builds_give_the_same_bytes(drive: Path, atlas: Path, tmp_path: Path) -> None:
    build(drive, tmp_path / "again")
    assert files(tmp_path / "again") == files(atlas)


def test_a_grown_collection_computes_only_what_is_new(drive: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_drive(images, 20)
    build(images, tmp_path / "atlas")
    before = files(tmp_path / "atlas")
    write_drive(images, 3, start=20)
    run = build(images, tmp_path / "atlas")
    assert done(run)["ingest"] == 3
    assert done(run)["describe"] == 3
    assert done(run)["pair"] == 3
    after = files(tmp_path / "atlas")
    old = [name for name in before if name.startswith(("descriptors/", "pairs/"))]
    assert old
    assert all(after[name] == before[name] for name in old)


def test_a_removed_photograph_leaves_every_table(tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_drive(images, 10)
    build(images, tmp_path / "atlas")
    (images / "0004.jpg").unlink()
    build(images, tmp_path / "atlas")
    gone = image_id("0004.jpg")
    for table, column in (
        ("images", "image_id"),
        ("descriptors/netvlad-lite", "image_id"),
        ("pairs", "image_id_a"),
        ("pairs", "image_id_b"),
    ):
        assert gone not in pq.read_table(tmp_path / "atlas" / table)[column].to_pylist()


def test_a_changed_photograph_is_described_anew(tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_drive(images, 10)
    build(images, tmp_path / "atlas", upto=2)
    write_drive(images, 1, start=3, seed=9)
    run = build(images, tmp_path / "atlas", upto=2)
    assert done(run)["ingest"] == 1
    rows = pq.read_table(tmp_path / "atlas" / "images").to_pylist()
    assert len(rows) == 10
    descriptors = pq.read_table(tmp_path / "atlas" / "descriptors" / "netvlad-lite")
    assert sorted(descriptors["image_id"].to_pylist()) == sorted(row["image_id"] for row in rows)


def test_a_shard_that_was_lost_or_cut_short_is_made_again(drive: Path, tmp_path: Path) -> None:
    build(drive, tmp_path / "atlas")
    before = files(tmp_path / "atlas")
    shards = sorted((tmp_path / "atlas" / "descriptors").rglob("*.parquet"))
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:-100])
    run = build(drive, tmp_path / "atlas")
    assert done(run)["describe"] > 0
    assert files(tmp_path / "atlas") == before


def test_every_bad_input_is_rejected_with_its_reason_and_costs_nothing_else(tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_drive(images / "drive", 30)
    reasons = write_bad_inputs(images / "bad")
    odd = write_odd_inputs(images / "odd")
    build(images, tmp_path / "atlas", upto=2, max_pixels=100_000_000)
    rejects = pq.read_table(tmp_path / "atlas" / "rejects" / "ingest")
    rejected = {
        Path(uri).name: reason
        for uri, reason in zip(
            rejects["uri"].to_pylist(), rejects["reason"].to_pylist(), strict=True
        )
    }
    assert rejected == {name: reason.value for name, reason in reasons.items()}
    rows = {
        row["image_id"]: row for row in pq.read_table(tmp_path / "atlas" / "images").to_pylist()
    }
    assert len(rows) == 30 + len(odd)
    for path, accepted in odd.items():
        row = rows[image_id(f"odd/{path}")]
        assert (row["width"], row["height"]) == (accepted.width, accepted.height)
        if accepted.position is None:
            assert row["latitude"] is None
            assert row["cell"] == "none"
        else:
            assert (row["latitude"], row["longitude"]) == pytest.approx(accepted.position, abs=1e-6)


def test_too_many_rejects_end_the_run_and_say_so(tmp_path: Path) -> None:
    write_bad_inputs(tmp_path / "images")
    write_drive(tmp_path / "images", 2)
    with pytest.raises(UserError, match="max-reject-rate"):
        build(tmp_path / "images", tmp_path / "atlas", upto=1)


def test_exact_duplicates_point_to_the_first_and_are_not_described(tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_drive(images, 9)
    (images / "copy").mkdir()
    (images / "copy" / "0002.jpg").write_bytes((images / "0002.jpg").read_bytes())
    build(images, tmp_path / "atlas", upto=2)
    rows = {
        row["image_id"]: row for row in pq.read_table(tmp_path / "atlas" / "images").to_pylist()
    }
    first, copy = image_id("0002.jpg"), image_id("copy/0002.jpg")
    assert rows[copy]["duplicate_of"] == first
    assert rows[first]["duplicate_of"] is None
    descriptors = pq.read_table(tmp_path / "atlas" / "descriptors" / "netvlad-lite")
    assert copy not in descriptors["image_id"].to_pylist()


def test_a_manifest_chooses_the_photographs_and_overrides_their_exif(tmp_path: Path) -> None:
    write_drive(tmp_path / "images", 6)
    manifest = tmp_path / "drive.csv"
    manifest.write_text(
        "uri,latitude,longitude,sequence_id\n"
        "images/0001.jpg,-33.5,-70.25,south\n"
        "images/0002.jpg,,,south\n"
        "images/missing.jpg,1,1,south\n"
    )
    run = build(manifest, tmp_path / "atlas", upto=1)
    rows = {
        row["image_id"]: row for row in pq.read_table(tmp_path / "atlas" / "images").to_pylist()
    }
    assert len(rows) == 2
    moved, unmoved = rows[image_id("images/0001.jpg")], rows[image_id("images/0002.jpg")]
    assert (moved["latitude"], moved["longitude"]) == (-33.5, -70.25)
    assert unmoved["latitude"] == pytest.approx(48.2 + 2 * 2e-5, abs=1e-9)
    assert {moved["sequence_id"], unmoved["sequence_id"]} == {"south"}
    rejects = pq.read_table(run.atlas.path("rejects/ingest"))
    assert rejects["reason"].to_pylist() == ["missing"]


@pytest.mark.parametrize(
    ("images", "words"),
    [("nowhere", "does not exist"), ("empty", "no photographs")],
)
def test_a_missing_or_empty_folder_is_one_clear_line(
    tmp_path: Path, images: str, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=words):
        build(tmp_path / images, tmp_path / "atlas", upto=1)


def test_tables_have_the_schemas_of_the_contract(atlas: Path) -> None:
    for folder, schema in (("images", tables.IMAGES), ("pairs", tables.PAIRS)):
        for path in (atlas / folder).rglob("*.parquet"):
            stored = pq.read_schema(path)
            assert stored.remove_metadata().equals(schema.remove_metadata())
            assert stored.metadata[b"vladmap:schema_version"] == b"1"
            for name in schema.names:
                assert stored.field(name).metadata == schema.field(name).metadata


def test_a_stage_without_the_one_before_says_which_to_run(tmp_path: Path, drive: Path) -> None:
    run = build(drive, tmp_path / "atlas", upto=1)
    with pytest.raises(UserError, match="vladmap describe"):
        require(run, "index")


def test_index_holds_every_descriptor_and_finds_each_image_itself(atlas: Path) -> None:
    import faiss

    folder = atlas / "index" / "netvlad-lite"
    index = faiss.read_index(str(folder / "global.faiss"))
    ids = pq.read_table(folder / "ids.parquet")["image_id"].to_pylist()
    descriptors = pq.read_table(atlas / "descriptors" / "netvlad-lite")
    vectors = np.stack(descriptors["descriptor"].to_numpy())
    _, rows = index.search(vectors, 1)
    assert [ids[row] for row in rows[:, 0]] == descriptors["image_id"].to_pylist()


def smoothed_at_once(atlas: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Ids, and what `places.faiss` must hold of them and does hold."""
    import faiss

    folder = atlas / "index" / "netvlad-lite"
    ids = pq.read_table(folder / "ids.parquet")["image_id"].to_pylist()
    images = pq.read_table(atlas / "images").to_pandas().set_index("image_id").loc[ids]
    descriptors = pq.read_table(atlas / "descriptors" / "netvlad-lite")
    row_of = {image: row for row, image in enumerate(descriptors["image_id"].to_pylist())}
    vectors = np.stack(descriptors["descriptor"].to_numpy())[[row_of[image] for image in ids]]
    vectors = vectors.astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    positions = ecef_on_ellipsoid(images["latitude"].to_numpy(), images["longitude"].to_numpy())
    headings = images["heading_deg"].to_numpy(np.float64)
    index = faiss.read_index(str(folder / "places.faiss"))
    return ids, smooth(vectors, positions, headings, SIGMA_M), index.reconstruct_n(0, len(ids))


def test_the_index_of_places_is_smoothed_across_shards(atlas: Path) -> None:
    ids, wanted, held = smoothed_at_once(atlas)
    assert len(ids) == 20
    np.testing.assert_allclose(held, wanted, atol=1e-3)  # descriptors are kept in half precision
    vectors = np.stack(pq.read_table(atlas / "descriptors")["descriptor"].to_numpy())
    assert np.abs(np.sort(vectors @ vectors.T) - np.sort(held @ held.T)).max() > 0.01
    facts = json.loads((atlas / "index" / "netvlad-lite" / "index.json").read_text())
    assert facts["places_sigma_m"] == SIGMA_M


def test_a_photograph_that_comes_later_is_mixed_into_its_neighbours_that_look_the_same_way_too(
    tmp_path: Path,
) -> None:
    photos = tmp_path / "photos"
    for count in (9, 20):
        write_drive(photos, count, headings=(0.0, 180.0))
        run = build(photos, tmp_path / "atlas", upto=3)
    images = pq.read_table(tmp_path / "atlas" / "images")
    assert set(images["heading_deg"].to_pylist()) == {0.0, 180.0}
    _, wanted, held = smoothed_at_once(tmp_path / "atlas")
    np.testing.assert_allclose(held, wanted, atol=1e-3)
    assert done(run)["index places"] == 20
    assert done(build(photos, tmp_path / "atlas", upto=3))["index places"] == 0


def test_geopandas_reads_the_images_as_geometries(atlas: Path) -> None:
    import geopandas

    frame = geopandas.read_parquet(atlas / "images")
    assert str(frame.crs) == "OGC:CRS84"
    assert frame.geometry.y.to_numpy() == pytest.approx(frame["latitude"].to_numpy())


def test_a_chosen_ivf_index_stays_until_the_collection_is_fourfold(tmp_path: Path) -> None:
    settings = BuildOptions(atlas=str(tmp_path))
    run = Run(AtlasStore.open(str(tmp_path), create=True), settings)
    facts = {"factory": "IVF1024,SQ8", "chosen_for": 21_000}
    folder = tmp_path / "index" / settings.model
    folder.mkdir(parents=True)
    (folder / "index.json").write_text(json.dumps(facts))
    assert index_factory(run, 80_000, 7168) == ("IVF1024,SQ8", 21_000)
    assert index_factory(run, 84_000, 7168) == ("IVF2048,SQ8", 84_000)


def test_an_ivf_index_is_merged_from_its_shards(drive: Path, tmp_path: Path) -> None:
    run = build(drive, tmp_path / "atlas", factory="IVF4,Flat")
    facts = json.loads(Path(run.atlas.path("index/netvlad-lite/index.json")).read_text())
    assert facts["factory"] == "IVF4,Flat"
    assert facts["count"] == 20
    assert facts["recall"] == 1.0  # all four lists are visited
    assert set(done(build(drive, tmp_path / "atlas", factory="IVF4,Flat")).values()) == {0}
