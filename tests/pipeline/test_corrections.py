"""Photographs that change under a build: seen whatever their times say, and no work lost."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.drives import write_drive
from tests.pipeline.test_stages import build, done, files
from vladmap.atlas import storage
from vladmap.photos.ids import image_id
from vladmap.pipeline import collection
from vladmap.pipeline.collection import list_collection
from vladmap.pipeline.stages import STAGES
from vladmap.pipeline.stages.ingest import PLAN

pytestmark = pytest.mark.medium

CORRECTED = Path(__file__).parents[1] / "cases" / "corrected"
MOMENT = 1_714_000_000


def latitudes(atlas: Path) -> dict[str, float | None]:
    rows = pq.read_table(atlas / "images").to_pylist()
    return {row["image_id"]: row["latitude"] for row in rows}


def put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
    os.utime(target, (MOMENT, MOMENT))


def test_a_correction_that_keeps_size_and_time_is_seen(tmp_path: Path) -> None:
    """Issue 19, 8: `exiftool -P` and its like restore the modification time."""
    photo = tmp_path / "photos" / "a.jpg"
    put(CORRECTED / "before.jpg", photo)
    before = photo.stat()
    build(tmp_path / "photos", tmp_path / "atlas", upto=1)
    put(CORRECTED / "after.jpg", photo)
    assert (photo.stat().st_size, photo.stat().st_mtime) == (before.st_size, before.st_mtime)
    build(tmp_path / "photos", tmp_path / "atlas", upto=1)
    assert latitudes(tmp_path / "atlas") == {image_id("a.jpg"): pytest.approx(48.2092, abs=1e-5)}


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing that knows neither times nor sizes: some file systems' are like that."""

    def without_times(source: str) -> object:
        listing = list_collection(source)
        rows = [
            {**row, "size": 0, "modified_ns": 0, "changed_ns": None}
            for row in listing.table.to_pylist()
        ]
        table = pa.Table.from_pylist(rows, schema=listing.table.schema)
        return type(listing)(**{**vars(listing), "table": table})

    monkeypatch.setattr(collection, "list_collection", without_times)


@pytest.mark.usefixtures("blind")
def test_a_change_that_no_listing_shows_is_a_reject_once_and_read_again_by_the_next_run(
    tmp_path: Path,
) -> None:
    """Issue 19, 8: what describe finds changed is ingested again, and the build goes on."""
    photos, atlas = tmp_path / "photos", tmp_path / "atlas"
    write_drive(photos, 8)
    build(photos, atlas, upto=1)
    old = (photos / "0003.jpg").read_bytes()
    write_drive(photos, 1, start=3, seed=9)
    assert (photos / "0003.jpg").read_bytes() != old
    build(photos, atlas)
    rejects = pq.read_table(atlas / "rejects" / "describe-netvlad-lite").to_pylist()
    assert [(row["image_id"], row["reason"]) for row in rejects] == [
        (image_id("0003.jpg"), "changed")
    ]
    assert done(build(photos, atlas))["ingest"] == 1
    ids = pq.read_table(atlas / "descriptors")["image_id"].to_pylist()
    assert sorted(ids) == sorted(image_id(f"{n:04d}.jpg") for n in range(8))
    assert not list((atlas / "rejects").rglob("*.parquet"))
    assert set(done(build(photos, atlas)).values()) == {0}


@pytest.mark.usefixtures("blind")
def test_a_drive_that_was_away_while_describing_is_asked_again(tmp_path: Path) -> None:
    """Issue 19, 8, its kind: missing for one stage is not missing for ever."""
    photos, atlas = tmp_path / "photos", tmp_path / "atlas"
    write_drive(photos, 8)
    build(photos, atlas, upto=1)
    (photos / "0005.jpg").rename(tmp_path / "0005.jpg")
    STAGES["describe"].work(build(photos, atlas, upto=0))
    assert len(pq.read_table(atlas / "descriptors")) == 7
    (tmp_path / "0005.jpg").rename(photos / "0005.jpg")
    build(photos, atlas)
    assert len(pq.read_table(atlas / "descriptors")) == 8
    assert set(done(build(photos, atlas)).values()) == {0}


def test_touched_copied_and_moved_photographs_are_read_again_and_nothing_else_is_computed(
    tmp_path: Path,
) -> None:
    """Issue 19, 8: the same bytes keep their shard and their descriptors."""
    photos, atlas = tmp_path / "photos", tmp_path / "atlas"
    write_drive(photos, 20)
    build(photos, atlas)
    unchanged = ("images/", "descriptors/", "pairs/", "index/")
    before = {name: data for name, data in files(atlas).items() if name.startswith(unchanged)}
    for number in (1, 4, 11):
        os.utime(photos / f"{number:04d}.jpg")
    run = build(photos, atlas)
    assert done(run) == dict.fromkeys(done(run), 0) | {"ingest": 3}
    assert {
        name: data for name, data in files(atlas).items() if name.startswith(unchanged)
    } == before

    shutil.copytree(photos, tmp_path / "elsewhere")
    shutil.rmtree(photos)
    run = build(tmp_path / "elsewhere", atlas)
    assert done(run) == dict.fromkeys(done(run), 0) | {"ingest": 20}
    uris = pq.read_table(atlas / "images")["uri"].to_pylist()
    assert all(uri.startswith(str(tmp_path / "elsewhere")) for uri in uris)
    assert done(build(tmp_path / "elsewhere", atlas))["ingest"] == 0


def test_a_photograph_that_moved_twice_and_then_changed_is_told_from_one_that_only_moved(
    tmp_path: Path,
) -> None:
    """Issue 19, 8."""
    photos, atlas = tmp_path / "photos", tmp_path / "atlas"
    write_drive(photos, 10)
    build(photos, atlas, upto=2)
    os.utime(photos / "0002.jpg")
    build(photos, atlas, upto=2)
    os.utime(photos / "0002.jpg")
    run = build(photos, atlas, upto=2)
    assert (done(run)["ingest"], done(run)["describe"]) == (1, 0)
    write_drive(photos, 1, start=2, seed=9)
    run = build(photos, atlas, upto=2)
    assert done(run)["ingest"] == 1
    assert done(run)["describe"] > 0
    shards = {path.name.split("-")[0] for path in (atlas / "images").rglob("*.parquet")}
    assert shards == {"g0000", "g0003"}


def test_an_atlas_whose_plan_knows_no_change_times_is_read_once_more_and_described_no_more(
    tmp_path: Path,
) -> None:
    """Issue 19, 8: plans of vladmap 0.1 hold a float of seconds."""
    photos, atlas = tmp_path / "photos", tmp_path / "atlas"
    write_drive(photos, 10)
    run = build(photos, atlas)
    for entry in run.ledger(PLAN).values():
        old = []
        for file in entry.files:
            table = pq.read_table(atlas / file.path)
            seconds = pa.array([at / 1e9 for at in table["modified_ns"].to_pylist()])
            table = table.select(["path", "uri", "size", "kind", "overrides"]).add_column(
                3, "modified", seconds
            )
            old.append(storage.commit_table(str(atlas), file.path, table))
        line = atlas / "ledger" / "plan" / f"{entry.shard}.json"
        line.write_bytes(replace(entry, files=tuple(old)).to_json())
    run = build(photos, atlas)
    assert done(run) == dict.fromkeys(done(run), 0) | {"ingest": 10}
    assert set(done(build(photos, atlas)).values()) == {0}
