"""Damaged atlases: what was lost or altered is noticed, named and made again."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.drives import write_drive
from tests.pipeline import damage
from tests.pipeline.test_stages import build, done, files
from vladmap.atlas import storage
from vladmap.atlas.integrity import check_atlas
from vladmap.atlas.store import AtlasStore
from vladmap.jobs.main import main
from vladmap.pipeline import build as pipeline_build
from vladmap.pipeline.build import run_stages
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.run import Run
from vladmap.schemas.records import sealed, unsealed
from vladmap.schemas.rejects import DamagedFile

pytestmark = pytest.mark.medium

OF_EACH = int(os.environ.get("VLADMAP_DAMAGES", "4"))
UP_TO_PAIRS = ("ingest", "describe", "index", "pair")


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A collection that grew once, and its atlas up to the pairs: two generations."""
    folder = tmp_path_factory.mktemp("grown")
    for start, count in ((0, 8), (8, 4)):
        write_drive(folder / "photos", count, start=start)
        build(folder / "photos", folder / "atlas")
    return folder / "photos", folder / "atlas"


def options(photos: Path, atlas: Path) -> BuildOptions:
    return BuildOptions(images=str(photos), atlas=str(atlas), shard_images=8, clusters=8)


def build_again(photos: Path, atlas: Path) -> Run:
    return run_stages(
        AtlasStore.open(str(atlas), create=True), options(photos, atlas), (), UP_TO_PAIRS
    )


def data_files(atlas: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(atlas).items() if not name.startswith(".lock")}


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1
    path.write_bytes(data)


def unnoticed(atlas: Path, path: Path) -> None:
    """See to it that no time tells that a file changed, as where a disk rots."""
    for line in (atlas / "ledger").rglob("*.json"):
        if path.relative_to(atlas).as_posix() in line.read_text():
            os.utime(line)


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
    "work/headers/*.parquet", "work/index/*/*.faiss", "ledger/*/*.json"])  # fmt: skip
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


@pytest.mark.parametrize("pattern", ["descriptors/*/*/*.parquet", "work/index/*/g*.faiss"])
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
    said = capsys.readouterr().err.splitlines()[-1]
    assert str(path) in said
    assert "vladmap build" in said


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
    "said",
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
    grown: tuple[Path, Path], tmp_path: Path, said: bytes, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """Issue 19, 17: `timings.json` cannot end a build."""
    _, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)
    (atlas / "work" / "timings.json").write_bytes(said)
    assert main(["report", "--atlas", str(atlas)]) == 0
    said_of_it = "what earlier runs kept in it is not shown"
    assert (said_of_it in capsys.readouterr().err) == (b"seal" not in said)


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


def checked(atlas: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["check-atlas", "--atlas", str(atlas), *words])
    return code, capsys.readouterr().out


def test_check_atlas_names_everything_that_is_wrong(
    grown: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 17: `vladmap verify-atlas` reads and checks everything, names what is damaged."""
    _, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)
    assert main(["verify-atlas", "--atlas", str(atlas)]) == 0
    assert "0 things are wrong" in capsys.readouterr().out
    before = data_files(atlas)
    flipped = sorted((atlas / "descriptors").rglob("*.parquet"))[0]
    flip(flipped)
    unnoticed(atlas, flipped)
    cut = sorted((atlas / "pairs").rglob("*.parquet"))[0]
    cut.write_bytes(cut.read_bytes()[:-1])
    missing = sorted((atlas / "images").rglob("*.parquet"))[0]
    missing.unlink()
    stray = atlas / "images" / "stray.parquet"
    shutil.copy(sorted((atlas / "images").rglob("*.parquet"))[0], stray)
    line = atlas / "ledger" / "scan" / "g0000-00000.json"
    flip(line)
    code, said = checked(atlas, capsys)
    assert code == 1
    for path in (flipped, cut, missing, stray, line):
        assert f"{path}: " in said
    # It only looks.
    assert {name: data for name, data in data_files(atlas).items() if name in before} == {
        name: (atlas / name).read_bytes() for name in before if (atlas / name).exists()
    }


def test_check_atlas_knows_rows_columns_and_ids(
    grown: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 17: parses, schema, row counts, cross-references."""
    _, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)

    def recommit(stage: str, table: pa.Table, rows: int | None = None) -> None:
        line = sorted((atlas / "ledger" / stage).glob("*.json"))[0]
        record = unsealed(line.read_bytes())
        file = storage.commit_table(str(atlas), record["file"], table)
        record |= {"bytes": file.bytes, "digest": file.digest}
        record["rows"] = file.rows if rows is None else rows
        line.write_bytes(sealed(record))

    path = sorted((atlas / "pairs").rglob("*.parquet"))[0]
    pairs = pq.read_table(path)
    foreign = pairs.set_column(0, pairs.schema.field(0), pa.array(["x"] * pairs.num_rows))
    for table, rows, words in (
        (foreign, None, "ids that images/ does not know (first: 'x')"),
        (pairs, 3, "rows, 3 were committed"),
        (pairs.drop_columns(["similarity"]), None, "its columns are not those of its table"),
    ):
        recommit("pair", table, rows)
        code, said = checked(atlas, capsys)
        assert code == 1
        assert words in said


def test_repair_says_what_it_needs_where_an_atlas_does_not_know_its_options(
    grown: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 17."""
    _, whole = grown
    atlas = tmp_path / "atlas"
    shutil.copytree(whole, atlas)
    flip(sorted((atlas / "descriptors").rglob("*.parquet"))[0])
    before = data_files(atlas)
    assert main(["check-atlas", "--atlas", str(atlas), "--repair"]) == 2
    assert "run the same `vladmap build` again" in capsys.readouterr().err
    assert data_files(atlas) == before


def test_repair_opens_no_folder_whose_photographs_the_atlas_does_not_know(
    grown: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 16: an atlas does not say which files of its reader's are read."""
    _, whole = grown
    atlas, private = tmp_path / "atlas", tmp_path / "private"
    shutil.copytree(whole, atlas)
    write_drive(private, 3, seed=5)
    pipeline_build._keep_options(AtlasStore(str(atlas)), options(private, atlas))
    flip(sorted((atlas / "descriptors").rglob("*.parquet"))[0])
    assert main(["check-atlas", "--atlas", str(atlas), "--repair"]) == 2
    assert "say with --images" in capsys.readouterr().err


def test_a_page_of_a_column_that_is_damaged_is_noticed_by_who_reads_that_column(
    tmp_path: Path,
) -> None:
    """Issue 19, 17: a flipped bit among uncompressible numbers is another number."""
    numbers = pa.table({"a": pa.array(range(100_000)), "b": pa.array([0.1] * 100_000)})
    data = bytearray(storage.table_bytes(numbers))
    path = tmp_path / "t.parquet"
    wrong = 0
    for place in range(4, len(data) - 2000, len(data) // 40):
        data[place] ^= 4
        path.write_bytes(data)
        data[place] ^= 4
        try:
            wrong += not storage.read_table(str(path)).equals(numbers)
        except DamagedFile:
            continue
    assert wrong == 0


def test_half_written_files_of_killed_runs_are_deleted_and_those_of_living_ones_not(
    tmp_path: Path,
) -> None:
    """Issue 19, 18: half-written `.X.tmp` stayed for ever."""
    atlas = AtlasStore.open(str(tmp_path), create=True)
    old, new, other = (
        tmp_path / "images" / name
        for name in (f".a.parquet.{'0' * 32}.tmp", f".b.parquet.{'1' * 32}.tmp", ".c.tmp")
    )
    old.parent.mkdir()
    for path in (old, new, other):
        path.write_bytes(b"half")
    os.utime(new, (time.time() + 60,) * 2)
    with atlas.locked():
        assert [path.exists() for path in (old, new, other)] == [False, True, True]


def test_a_file_and_its_folder_reach_the_disk_before_the_ledger_has_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 19, 18: a power cut must not leave a line without its file."""
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    names = lambda found: os.path.relpath(os.readlink(f"/proc/self/fd/{found}"), tmp_path)  # noqa: E731
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(f"sync {names(fd)}"), fsync(fd)))
    monkeypatch.setattr(
        os, "replace", lambda a, b: (events.append(f"name {os.path.relpath(b, tmp_path)}"),
                                     replace(a, b)),
    )  # fmt: skip
    from tests.atlas.test_hostile_atlas import entry

    entry(tmp_path)
    kinds = [event.split(".")[0] + event[-4:] if ".tmp" in event else event for event in events]
    assert [event for event in kinds if "tmp" not in event] == [
        "name pairs/s.bin", "sync pairs", "sync .",
        "name ledger/pair/s.json", "sync ledger/pair", "sync ledger", "sync .",
    ]  # fmt: skip
    assert kinds[0].startswith("sync pairs/")
    assert events.index("sync .") < next(
        place for place, event in enumerate(events) if event.startswith("sync ledger/")
    )


def test_reading_tables_shortly_before_the_end_ends_well(tmp_path: Path) -> None:
    """Issue 19, 18: Arrow's threads let go of no Python file when the interpreter has ended."""
    path = tmp_path / "t.parquet"
    path.write_bytes(storage.table_bytes(pa.table({"a": list(range(1000))})))
    opened: list[object] = []
    original = pq.ParquetFile.__init__

    def noting(self: object, source: object, **options: object) -> None:
        opened.append(source)
        original(self, source, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pq.ParquetFile, "__init__", noting)
        storage.read_table(str(path), ["a"])
        storage.read_schema(str(path))
    assert opened == [str(path)] * 2


@pytest.mark.slow
def test_flips_cuts_and_deletions_all_over_an_atlas_are_never_silent_nor_a_traceback(
    tmp_path: Path,
) -> None:
    """Issue 19, 17: after the next build the map is right, or a line says what is wrong."""
    assert main(["sample", str(tmp_path / "city"), "--images", "12", "--seed", "0"]) == 0
    atlas = tmp_path / "atlas"
    words = ["--images", str(tmp_path / "city" / "images"), "--atlas", str(atlas)]
    assert main(["build", *words, "--shard-images", "6"]) == 0
    results = list(damage.damage_all(atlas, OF_EACH, seed=0, together=2))
    print(damage.table(results))
    bad = [
        (hit.kind, hit.path, outcome, said)
        for hit, outcome, said in results
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
