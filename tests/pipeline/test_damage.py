"""What a build does with files of an atlas that are damaged, lost or older than it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.city import write_city
from tests.pipeline import damage
from tests.pipeline.damaged import build_again, data_files, flip, unnoticed
from tests.pipeline.test_stages import build, done, files
from vladmap.atlas import storage
from vladmap.atlas.integrity import check_atlas
from vladmap.atlas.store import AtlasStore
from vladmap.jobs.main import main
from vladmap.schemas.records import sealed, unsealed

pytestmark = pytest.mark.medium

OF_EACH = int(os.environ.get("VLADMAP_DAMAGES", "4"))


@pytest.mark.parametrize("lost", ["g0000", "g0001"])
def test_a_lost_plan_is_made_again_under_its_own_name_and_nothing_else_is(
    grown: tuple[Path, Path], tmp_path: Path, lost: str
) -> None:
    """Issue 19, 17: a plan named by count collided with the next one, and ids stood twice."""
    photos, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)
    (atlas / "ledger" / "plan" / f"{lost}.json").unlink()
    run = build(photos, atlas)
    assert set(done(run).values()) == {0}
    assert files(atlas) == files(whole)


def test_without_its_work_folder_an_atlas_holds_each_image_once(
    grown: tuple[Path, Path], tmp_path: Path
) -> None:
    """Issue 19, 17: `work/` can be lost."""
    photos, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)
    shutil.rmtree(atlas / "work")
    build_again(photos, atlas)
    for table in ("images", "descriptors/netvlad-lite"):
        ids = pq.read_table(atlas / table)["image_id"].to_pylist()
        assert sorted(ids) == sorted(pq.read_table(whole / table)["image_id"].to_pylist())
    assert check_atlas(AtlasStore.open(str(atlas), create=False)) == []


@pytest.mark.parametrize("pattern", ["images/*/*.parquet", "descriptors/*/*/*.parquet",
    "pairs/*.parquet", "index/*/*.faiss", "index/*/index.json",
    "work/headers/*.parquet", "work/index/*/*.bin", "ledger/*/*.json"])  # fmt: skip
def test_one_flipped_bit_is_named_and_made_anew(
    grown: tuple[Path, Path], tmp_path: Path, pattern: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue 19, 17: of 31 files with one flipped bit 22 went unseen."""
    photos, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)
    path = sorted(atlas.glob(pattern))[0]
    flip(path)
    build_again(photos, atlas)
    assert str(path) in caplog.text
    assert data_files(atlas) == files(whole)


def test_damaged_weights_are_learnt_anew_and_all_that_was_made_by_them(
    grown: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue 19, 17: new descriptors differed from old ones."""
    photos, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)
    path = sorted(atlas.glob("index/*/*.safetensors"))[0]
    flip(path)
    run = build_again(photos, atlas)
    assert str(path) in caplog.text
    # Of more photographs than before: the weights are others, and so are all descriptors.
    assert done(run)["describe"] == 12
    schemas = [pq.read_schema(file) for file in (atlas / "descriptors").rglob("*.parquet")]
    assert len({schema.metadata[b"vladmap:model_fingerprint"] for schema in schemas}) == 1
    assert check_atlas(AtlasStore.open(str(atlas), create=False)) == []


def test_a_file_that_changed_after_its_line_was_written_is_read_and_no_other_is(
    grown: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 19, 17: a build checks what it reads, and does not read all of a large atlas."""
    photos, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)
    build_again(photos, atlas)  # a copy is doubted, and read whole once
    read: list[str] = []
    file_digest = storage.file_digest
    monkeypatch.setattr(storage, "file_digest", lambda path: read.append(path) or file_digest(path))
    build_again(photos, atlas)
    # The driver writes one small table whenever it plans; weights are read whole anyway.
    assert {Path(path).name for path in read} <= {"dead.parquet", "model.safetensors"}
    touched = sorted((atlas / "descriptors").rglob("*.parquet"))[0]
    os.utime(touched)
    build_again(photos, atlas)
    assert str(touched) in read
    read.clear()
    build_again(photos, atlas)
    assert str(touched) not in read


@pytest.mark.parametrize("pattern", ["descriptors/*/*/*.parquet", "work/index/*/g*.bin"])
def test_damage_that_no_time_tells_of_is_made_anew_when_it_is_met(
    grown: tuple[Path, Path], tmp_path: Path, pattern: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue 19, 17: a shard that does not parse was a traceback for ever."""
    photos, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)
    build_again(photos, atlas)
    # The merged index is lost, so that the parts and the descriptors are read again.
    (sorted(atlas.glob("index/*/global.faiss"))[0]).unlink()
    path = sorted(atlas.glob(pattern))[0]
    flip(path)
    unnoticed(atlas, path)
    build_again(photos, atlas)
    assert "starting again" in caplog.text
    assert str(path) in caplog.text
    assert data_files(atlas) == files(whole)


def test_a_job_on_damaged_results_of_a_stage_before_it_says_what_to_run(
    grown: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 17: `pair` worked with the shards that were left, and said nothing."""
    _, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)
    path = sorted((atlas / "descriptors").rglob("*.parquet"))[0]
    flip(path)
    assert main(["pair", "--atlas", str(atlas)]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert str(path) in message
    assert "vladmap build" in message


@pytest.mark.parametrize("data", [None, b"", b"[]", b'{"schema_version": "x"}', b"[" * 100_000,
    b'{"schema_version": 1, "stages": 3}', b"\xff\xfe"])  # fmt: skip
def test_a_damaged_or_lost_manifest_is_made_anew_from_the_ledger(
    grown: tuple[Path, Path], tmp_path: Path, data: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue 19, 17."""
    photos, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)
    (atlas / "atlas.json").unlink()
    if data is not None:
        (atlas / "atlas.json").write_bytes(data)
    opened = AtlasStore.open(str(atlas), create=False)
    assert opened.manifest["collection"] == str(photos)
    assert opened.manifest["report"] == {"model": "netvlad-lite"}
    run = build_again(photos, atlas)
    assert set(done(run).values()) == {0}
    assert "it is made anew from the ledger" in caplog.text
    assert unsealed((atlas / "atlas.json").read_bytes())["counts"]["images"] == 12


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"{",
        sealed({"ingest": 3}),
        sealed(
            {"ingest": {"unit": 3, "elements": "x", "reused": 0, "seconds": None, "device": ""}}
        ),
    ],
)
def test_times_of_other_types_do_not_end_a_build(
    grown: tuple[Path, Path], tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """Issue 19, 17: `timings.json` cannot end a build."""
    _, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)
    (atlas / "work" / "timings.json").write_bytes(data)
    assert main(["report", "--atlas", str(atlas)]) == 0
    warning = "what earlier runs kept in it is not shown"
    assert (warning in capsys.readouterr().err) == (b"seal" not in data)


def test_an_atlas_of_an_older_vladmap_is_made_anew_and_nothing_stands_twice(
    grown: tuple[Path, Path], tmp_path: Path
) -> None:
    """Issue 19, 17: lines without a seal do not count, and leave no rows behind."""
    photos, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)
    for line in [*(atlas / "ledger").rglob("*.json"), atlas / "atlas.json"]:
        line.write_text(json.dumps(unsealed(line.read_bytes()), indent=1))
    (atlas / "images" / "cell=x").mkdir()
    stray = atlas / "images" / "cell=x" / "g0007-000-x-000.parquet"
    shutil.copy(sorted((atlas / "images").rglob("*.parquet"))[0], stray)
    build_again(photos, atlas)
    assert not stray.exists()
    ids = pq.read_table(atlas / "images")["image_id"].to_pylist()
    assert len(ids) == len(set(ids)) == 12
    assert check_atlas(AtlasStore.open(str(atlas), create=False)) == []


@pytest.mark.slow
def test_flips_cuts_and_deletions_all_over_an_atlas_are_never_silent_nor_a_traceback(
    tmp_path: Path,
) -> None:
    """Issue 19, 17: after the next build the map is right, or a line says what is wrong."""
    write_city(tmp_path / "city", 12)
    atlas = tmp_path / "atlas"
    words = ["--images", str(tmp_path / "city" / "images"), "--atlas", str(atlas)]
    assert main(["build", *words, "--shard-images", "6", "--threads", "1"]) == 0
    assert pq.read_table(atlas / "poses.parquet").num_rows > 6
    results = list(damage.damage_all(atlas, OF_EACH, seed=0, together=2))
    print(damage.table(results))
    bad = [
        (hit.kind, hit.path, outcome, output)
        for hit, outcome, output in results
        if outcome in (damage.SILENT, damage.TRACEBACK, damage.WRONG)
    ]
    assert not bad
    path = sorted((atlas / "descriptors").rglob("*.parquet"))[0]
    flip(path)
    assert main(["check-atlas", "--atlas", str(atlas), "--repair"]) == 0


def test_no_file_stays_that_nothing_would_read_again(grown: tuple[Path, Path]) -> None:
    """Issue 19, 17: damage to the list of the photographs learnt from was silent."""
    _, whole = grown
    assert not list((whole / "work" / "vocabulary").rglob("*.parquet"))


def test_a_line_that_was_made_again_outside_a_pipeline_stays(
    grown: tuple[Path, Path], tmp_path: Path
) -> None:
    """Issue 19, 17: tidying up takes away the lines that were not made again, and no other."""
    photos, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)
    line = atlas / "ledger" / "organise" / "all.json"
    flip(line)
    build_again(photos, atlas)
    assert line.read_bytes() == (whole / "ledger" / "organise" / "all.json").read_bytes()
