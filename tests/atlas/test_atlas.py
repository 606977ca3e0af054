"""The door for Python: what each reader gives, and what it says where it cannot."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.atlas.small import (
    CELL,
    DUPLICATE,
    MODELS,
    NAMES,
    SHARDS,
    features_of,
    id_of,
    vector,
    write_atlas,
)
from vladmap import Atlas, AtlasError, UserError
from vladmap.atlas import errors, layout, storage
from vladmap.atlas.commit import commit_again
from vladmap.atlas.integrity import check_atlas
from vladmap.atlas.store import AtlasStore
from vladmap.schemas.tables import JUDGEMENT

IDS = {id_of(name) for name in NAMES}
DESCRIBED = [name for name in NAMES if name != DUPLICATE]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photographs/ and atlas/, as read-only as a folder gets."""
    folder = tmp_path_factory.mktemp("door")
    (folder / "photographs").mkdir()
    generator = np.random.default_rng(0)
    for name in NAMES:
        pixels = generator.integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "photographs" / f"{name}.jpg", quality=95)
    write_atlas(folder / "atlas", folder / "photographs")
    return folder


@pytest.fixture
def atlas(made: Path) -> Atlas:
    return Atlas(made / "atlas")


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(made / "atlas", tmp_path / "atlas")
    return tmp_path / "atlas"


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_all(atlas: Atlas) -> None:
    """Every reader to its end."""
    repr(atlas)
    for table in (atlas.images, atlas.pairs, atlas.two_views, atlas.poses, atlas.unregistered):
        assert len(table())
    assert len(atlas.rejects())
    assert atlas.descriptors().vectors.shape == (6, 8)
    assert len(atlas.index().neighbours(id_of("n0"), 2)) == 2
    assert len(dict(atlas.features().shards())) == 3
    assert [model.folder.name for model in atlas.reconstructions()] == ["0", "1"]


class TestTables:
    def test_each_has_the_rows_of_all_shards_and_the_columns_of_its_contract(
        self, atlas: Atlas
    ) -> None:
        images = atlas.images()
        assert isinstance(images, geopandas.GeoDataFrame)
        assert set(images["image_id"]) == IDS
        assert list(atlas.pairs().columns)[:2] == ["image_id_a", "image_id_b"]
        assert len(atlas.pairs()) == len(atlas.two_views()) == len(SHARDS)
        assert set(atlas.poses()["name"]) == {"n0.jpg", "n2.jpg"}
        assert len(atlas.unregistered()) == 5
        assert atlas.rejects()["reason"].tolist() == ["missing"]
        assert images.index.tolist() == list(range(7))

    def test_geometries_are_points_of_longitude_and_latitude(self, atlas: Atlas) -> None:
        images = atlas.images().set_index("name")
        assert images.crs == "OGC:CRS84"
        assert images.loc["n3.jpg", "geometry"].coords[0] == pytest.approx((16.37, 48.203, 170.0))
        assert images["geometry"].isna().sum() == 2
        assert "bbox" not in images

    def test_some_columns_come_in_the_order_that_was_asked_for(self, atlas: Atlas) -> None:
        frame = atlas.images(columns=["longitude", "image_id"])
        assert type(frame) is pd.DataFrame
        assert list(frame.columns) == ["longitude", "image_id"]
        assert isinstance(atlas.images(["geometry"]), geopandas.GeoDataFrame)
        assert list(atlas.rejects(["detail"]).columns) == ["detail"]

    def test_matches_are_arrays_of_pairs_and_matrices_are_square(self, atlas: Atlas) -> None:
        view = atlas.two_views().iloc[0]
        assert view["matches"].tolist() == [[0, 0], [0, 1]]
        assert view["inliers"].tolist() == [[0, 1]]
        assert view["essential"].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
        assert view["homography"] is None

    def test_shards_are_frames_that_hold_the_table_together(self, atlas: Atlas) -> None:
        parts = list(atlas.shards("images", ["image_id", "name"]))
        assert [len(part) for part in parts] == [2, 3, 2]
        whole = pd.concat(parts, ignore_index=True)
        pd.testing.assert_frame_equal(whole, atlas.images(["image_id", "name"]))
        assert sum(map(len, atlas.shards("two_views"))) == 3

    def test_pairs_of_an_older_version_have_verdicts_that_are_missing(self, copied: Path) -> None:
        """One shard of before there were columns for them, beside shards of today."""
        name = sorted(SHARDS)[0]
        entry = Atlas(copied)._files.entries("verify")[name]
        table = storage.read_table(f"{copied}/{entry.file.path}").drop_columns(list(JUDGEMENT))
        commit_again(str(copied), "verify", entry, table, {})
        atlas = Atlas(copied)
        assert atlas.two_views()["verdict"].isna().all()
        probability = atlas.two_views(["image_id_a", "probability"])["probability"]
        assert len(probability) == 3
        assert probability.isna().all()
        store = AtlasStore.open(str(copied), create=False)
        assert not [found for found in check_atlas(store) if "two_views" in found.path]

    @pytest.mark.parametrize("table", ["images", "pairs", "two_views", "poses", "rejects"])
    def test_an_unknown_column_is_named_with_those_there_are(
        self, atlas: Atlas, table: str
    ) -> None:
        with pytest.raises(errors.NotInAtlas, match=f"{table}.* has no column lattitude: it has "):
            getattr(atlas, table)(["lattitude"])

    def test_a_table_without_shards_is_refused_at_once(self, atlas: Atlas) -> None:
        with pytest.raises(errors.NotInAtlas, match="'poses' has no shards"):
            atlas.shards("poses")


class TestDescriptors:
    @pytest.mark.parametrize("model", MODELS)
    def test_each_row_is_that_of_its_image_by_that_model(self, atlas: Atlas, model: str) -> None:
        descriptors = atlas.descriptors(model)
        names = {id_of(name): name for name in DESCRIBED}
        assert sorted(descriptors.image_ids) == sorted(names)
        assert descriptors.dimension == MODELS[model]
        assert descriptors.fingerprint == f"print of {model}"
        assert len(descriptors) == 6
        for image, row in zip(descriptors.image_ids, np.asarray(descriptors), strict=True):
            np.testing.assert_array_equal(row, vector(names[image], MODELS[model]))

    def test_shards_hold_them_together(self, atlas: Atlas) -> None:
        shards = list(atlas.descriptors().shards())
        assert [shard.shard for shard in shards] == sorted(SHARDS)
        whole = np.concatenate([shard.vectors for shard in shards])
        np.testing.assert_array_equal(whole, atlas.descriptors().vectors)

    def test_those_of_chosen_images_come_in_their_order(self, atlas: Atlas) -> None:
        names = ["n5", "n0", "n4", "n0"]
        rows = atlas.descriptors().of([id_of(name) for name in names])
        np.testing.assert_array_equal(rows, [vector(name, 8) for name in names])

    def test_an_exact_duplicate_has_none_and_is_named(self, atlas: Atlas) -> None:
        with pytest.raises(errors.NotInAtlas, match=f"1 images have no .*: {id_of(DUPLICATE)}"):
            atlas.descriptors().of([id_of("n0"), id_of(DUPLICATE)])

    def test_an_unknown_model_is_answered_by_those_there_are(self, atlas: Atlas) -> None:
        with pytest.raises(errors.NotInAtlas, match="no descriptors by vlad: name one of gem, net"):
            atlas.descriptors("vlad")
        with pytest.raises(errors.NotInAtlas, match="no features by xfeat: name one of sift"):
            atlas.features("xfeat")

    def test_without_a_last_build_several_models_must_be_chosen_from(self, copied: Path) -> None:
        (copied / "atlas.json").unlink()
        with pytest.raises(errors.NotInAtlas, match="several: name one of gem, netvlad-lite"):
            Atlas(copied).descriptors()
        assert Atlas(copied).descriptors("gem").dimension == 4


class TestIndex:
    @pytest.mark.parametrize("places", [False, True])
    def test_a_descriptor_finds_itself_and_then_its_neighbours(
        self, atlas: Atlas, places: bool
    ) -> None:
        hits = atlas.index(places=places).search(vector("n2", 8), 3)
        assert hits["image_id"][0] == id_of("n2")
        assert set(hits["image_id"][1:]) == {id_of("n1"), id_of("n3")}
        np.testing.assert_allclose(hits["similarity"], [1.0, 0.48, 0.48], atol=1e-6)
        assert hits["rank"].tolist() == [0, 1, 2]

    def test_several_queries_keep_their_numbers(self, atlas: Atlas) -> None:
        queries = np.stack([vector("n4", 4), vector("n1", 4)])
        hits = atlas.index("gem").search(queries, 1)
        assert hits["query"].tolist() == [0, 1]
        # In four dimensions n0 and n4 have one axis.
        assert hits["image_id"][1] in {id_of("n1"), id_of("n5")}

    def test_neighbours_leave_the_image_itself_out(self, atlas: Atlas) -> None:
        hits = atlas.index().neighbours([id_of("n1"), id_of("n3")], 2)
        assert hits["query"].tolist() == [id_of("n1")] * 2 + [id_of("n3")] * 2
        assert set(hits["image_id"][:2]) == {id_of("n0"), id_of("n2")}
        assert set(hits["image_id"][2:]) == {id_of("n2"), id_of("n4")}

    def test_more_than_there_are_is_all_there_are(self, atlas: Atlas) -> None:
        assert len(atlas.index().search(vector("n0", 8), 99)) == 6
        assert len(atlas.index().neighbours(id_of("n0"), 99)) == 5

    @pytest.mark.parametrize(
        ("queries", "k", "why"),
        [
            (np.zeros((1, 3), np.float32), 1, "have 8 numbers"),
            (np.zeros((1, 2, 8), np.float32), 1, "have 8 numbers"),
            (vector("n0", 8), 0, "ask for one image or more"),
        ],
    )
    def test_what_cannot_be_searched_for_is_an_error(
        self, atlas: Atlas, queries: np.ndarray, k: int, why: str
    ) -> None:
        with pytest.raises(AtlasError, match=why):
            atlas.index().search(queries, k)


class TestFeatures:
    def test_each_image_has_its_own_in_every_shard(self, atlas: Atlas) -> None:
        features = atlas.features()
        assert len(features) == 6
        assert set(features) == {id_of(name) for name in DESCRIBED}
        for name in DESCRIBED:
            stored, expected = features[id_of(name)], features_of(name)
            np.testing.assert_array_equal(stored.keypoints, expected.keypoints)
            np.testing.assert_array_equal(stored.descriptors, expected.descriptors)

    def test_an_image_without_features_is_an_error(self, atlas: Atlas) -> None:
        assert id_of(DUPLICATE) not in atlas.features("sift")
        with pytest.raises(errors.NotInAtlas, match="has no sift features"):
            atlas.features()[id_of(DUPLICATE)]


class TestReconstructions:
    def test_each_model_has_its_facts_and_folder(self, atlas: Atlas, made: Path) -> None:
        models = atlas.reconstructions()
        assert [(model.images, model.points) for model in models] == [(1, 5), (1, 3)]
        assert [model.georegistered for model in models] == [True, False]
        assert models[-1].folder == made / "atlas" / "model" / "1"
        assert len(models[:1]) == 1

    def test_a_metre_up_is_a_metre_of_altitude(self, atlas: Atlas) -> None:
        place = atlas.reconstructions()[0].geographic([0.0, 0.0, 1.0])
        np.testing.assert_allclose(place, [48.2, 16.37, 171.0], atol=1e-6)

    def test_a_model_without_gps_has_no_place_on_earth(self, atlas: Atlas) -> None:
        with pytest.raises(AtlasError, match="GPS did not place it"):
            atlas.reconstructions()[1].geographic([0.0, 0.0, 1.0])

    def test_files_that_colmap_cannot_read_are_an_error(self, atlas: Atlas) -> None:
        with pytest.raises(errors.DamagedAtlas, match="COLMAP cannot read it"):
            atlas.reconstructions()[0].open()


class TestPhotographs:
    def test_they_are_upright_rgb_reduced_where_asked_for(self, atlas: Atlas) -> None:
        assert atlas.photograph(id_of("n5")).shape == (30, 40, 3)
        assert atlas.photograph(id_of("n5"), long_side=20).shape == (15, 20, 3)

    def test_a_collection_that_moved_is_opened_where_it_is(
        self, made: Path, tmp_path: Path
    ) -> None:
        photographs = tmp_path / "elsewhere"
        shutil.copytree(made / "photographs", photographs)
        (photographs / "n1.jpg").write_bytes((photographs / "n0.jpg").read_bytes())
        (photographs / "n2.jpg").unlink()
        atlas = Atlas(made / "atlas", photographs=photographs)
        assert atlas.photograph(id_of("n0")).shape == (30, 40, 3)
        with pytest.raises(errors.MissingPhotograph, match="changed since ingest"):
            atlas.photograph(id_of("n1"))
        with pytest.raises(errors.MissingPhotograph, match=r"photographs=DIR"):
            atlas.photograph(id_of("n2"))

    def test_an_unknown_image_is_an_error(self, atlas: Atlas) -> None:
        with pytest.raises(errors.NotInAtlas, match="no image 'n0'"):
            atlas.photograph("n0")


class TestStates:
    def test_every_reader_leaves_the_atlas_as_it_was(self, made: Path) -> None:
        before = snapshot(made / "atlas")
        read_all(Atlas(made / "atlas"))
        assert snapshot(made / "atlas") == before

    def test_every_reader_reads_a_copy_a_moved_and_a_read_only_one(self, copied: Path) -> None:
        read_all(Atlas(copied))
        moved = copied.rename(copied.with_name("moved [1]"))
        read_all(Atlas(moved))
        for path in [moved, *moved.rglob("*")]:
            path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
        try:
            read_all(Atlas(moved))
        finally:
            for path in [moved, *moved.rglob("*")]:
                path.chmod(path.stat().st_mode | stat.S_IWUSR)

    def test_it_is_read_while_another_process_has_its_lock(self, copied: Path) -> None:
        from vladmap.atlas.store import AtlasStore

        with AtlasStore.open(str(copied), create=False).locked():
            read_all(Atlas(copied))

    def test_what_a_build_adds_is_there_at_the_next_call(self, made: Path, tmp_path: Path) -> None:
        write_atlas(tmp_path / "atlas", made / "photographs", maps=False)
        atlas = Atlas(tmp_path / "atlas")
        with pytest.raises(errors.NotBuiltYet, match=r"no poses\.parquet yet: run `vladmap merge`"):
            atlas.poses()
        write_atlas(tmp_path / "atlas", made / "photographs")
        assert len(atlas.poses()) == 2

    def test_an_atlas_without_a_map_says_so_and_has_the_rest(
        self, made: Path, tmp_path: Path
    ) -> None:
        write_atlas(tmp_path / "atlas", made / "photographs", maps=False)
        atlas = Atlas(tmp_path / "atlas")
        for reader in (atlas.poses, atlas.unregistered, atlas.reconstructions):
            with pytest.raises(errors.NotBuiltYet, match="run `vladmap merge` or `vladmap build`"):
                reader()
        assert len(atlas.images()) == 7

    def test_an_atlas_without_anything_says_what_to_run(self, tmp_path: Path) -> None:
        from vladmap.atlas.store import AtlasStore

        AtlasStore.open(str(tmp_path / "atlas"), create=True)
        atlas = Atlas(tmp_path / "atlas")
        assert repr(atlas).endswith("nothing yet>")
        for reader, stage in (
            (atlas.images, "ingest"),
            (atlas.rejects, "ingest"),
            (atlas.descriptors, "describe"),
            (atlas.index, "describe"),
            (atlas.features, "verify"),
            (atlas.pairs, "pair"),
        ):
            with pytest.raises(errors.NotBuiltYet, match=f"run `vladmap {stage}`"):
                reader()

    def test_what_is_no_atlas_is_told_so(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for path in (tmp_path / "nowhere", tmp_path / "file", tmp_path):
            with pytest.raises(errors.NotAnAtlas, match=str(path)):
                Atlas(path)
        assert issubclass(errors.NotAnAtlas, UserError)

    def test_its_text_says_what_is_in_it(self, atlas: Atlas) -> None:
        text = repr(atlas)
        for part in ("7 images", "gem, netvlad-lite", "sift", "3 of 3 pairs", "2 images with a"):
            assert part in text


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


IN_CELL = f"cell={CELL}/g0000-000-{CELL}-001.parquet"
READERS: list[tuple[str, Callable[[Atlas], object]]] = [
    (f"images/{IN_CELL}", lambda atlas: atlas.images()),
    (f"descriptors/netvlad-lite/{IN_CELL}", lambda atlas: atlas.descriptors().vectors),
    (f"features/sift/{IN_CELL}", lambda atlas: list(atlas.features().shards())),
    (f"pairs/g0000-000-{CELL}-001.parquet", lambda atlas: atlas.pairs()),
    (f"two_views/g0000-000-{CELL}-001.parquet", lambda atlas: atlas.two_views()),
    ("rejects/ingest/000.parquet", lambda atlas: atlas.rejects()),
    (layout.POSES, lambda atlas: atlas.poses()),
    (layout.UNREGISTERED, lambda atlas: atlas.unregistered()),
    ("index/netvlad-lite/global.faiss", lambda atlas: atlas.index().search(vector("n0", 8))),
    ("index/netvlad-lite/index.json", lambda atlas: repr(atlas.index())),
    ("model/merge.json", lambda atlas: len(atlas.reconstructions())),
    ("model/1/images.bin", lambda atlas: atlas.reconstructions()[1].folder),
]


class TestDamage:
    @pytest.fixture(autouse=True)
    def without_waiting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vladmap.atlas.committed.time.sleep", lambda seconds: None)

    @pytest.mark.parametrize("harm", [shorten, flip, os.remove], ids=["cut", "flip", "gone"])
    @pytest.mark.parametrize(("path", "reader"), READERS, ids=[path for path, _ in READERS])
    def test_a_file_that_is_not_what_the_ledger_says_is_named(
        self,
        copied: Path,
        path: str,
        reader: Callable[[Atlas], object],
        harm: Callable[[Path], None],
    ) -> None:
        harm(copied / path)
        with pytest.raises(errors.DamagedAtlas, match=path.replace("/", ".")) as raised:
            reader(Atlas(copied))
        assert "run the same `vladmap build` again" in str(raised.value)

    def test_a_damaged_line_of_the_ledger_is_named(self, copied: Path) -> None:
        flip(copied / "ledger" / "pair" / f"g0000-000-{CELL}-001.json")
        with pytest.raises(errors.DamagedAtlas, match="ledger/pair/g0000"):
            Atlas(copied).pairs()

    @pytest.mark.parametrize(
        ("path", "reader"), [READERS[0], READERS[8], READERS[11]], ids=["images", "index", "model"]
    )
    def test_a_link_out_of_the_atlas_is_not_followed(
        self, copied: Path, path: str, reader: Callable[[Atlas], object]
    ) -> None:
        outside = copied.with_name("outside")
        (copied / path).rename(outside)
        (copied / path).symlink_to(outside)
        with pytest.raises(errors.DamagedAtlas, match="leads out of the atlas"):
            reader(Atlas(copied))

    def test_a_name_that_leads_out_of_the_collection_is_not_read(
        self, made: Path, tmp_path: Path
    ) -> None:
        from vladmap.atlas.pixels import of_collection

        row = {"name": "../n0.jpg", "uri": "", "content_hash": ""}
        with pytest.raises(errors.MissingPhotograph, match="does not lie below"):
            of_collection(row, str(made / "photographs"), None)

    def test_a_shard_that_is_replaced_between_its_file_and_its_line_is_waited_for(
        self, copied: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shard = f"g0000-000-{CELL}-001"
        line, table = copied / f"ledger/pair/{shard}.json", copied / f"pairs/{shard}.parquet"
        old_table = table.read_bytes()
        flip(table)

        def finish(seconds: float) -> None:
            assert line.exists()
            table.write_bytes(old_table)

        monkeypatch.setattr("vladmap.atlas.committed.time.sleep", finish)
        assert len(Atlas(copied).pairs()) == 3


def test_opening_and_reading_images_imports_nothing_heavy(made: Path) -> None:
    """Issue 20: no Beam, torch, pycolmap or FAISS, and no network module of Beam's."""
    program = (
        "import sys\nfrom vladmap import Atlas\n"
        f"atlas = Atlas({str(made / 'atlas')!r})\nassert len(atlas.images()) == 7\n"
        "print(*sorted({'apache_beam', 'torch', 'pycolmap', 'faiss'} & set(sys.modules)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == []


def test_importing_vladmap_imports_none_of_what_it_is_made_of() -> None:
    program = (
        "import sys, vladmap\n"
        "assert {'Atlas', 'load_model'} <= set(dir(vladmap))\n"
        "heavy = {'numpy', 'pyarrow', 'pandas', 'apache_beam', 'torch', 'pycolmap', 'faiss'}\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout.split() == [], ran.stderr
