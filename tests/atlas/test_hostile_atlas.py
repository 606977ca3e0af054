"""An atlas that somebody else made: nothing outside its folder is read, written or deleted."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.drives import write_drive
from tests.pipeline.test_stages import build
from vladmap.atlas import storage
from vladmap.atlas.commit import commit_entry
from vladmap.atlas.store import AtlasStore
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.report_data import options_shown
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages.pair import PAIR
from vladmap.schemas.records import NO_CELL, FileRef, LedgerEntry, Task, sealed, unsealed
from vladmap.schemas.rejects import UserError

OUT = ["../victim", "a/../../victim", "/etc/passwd", "", ".", "..", "a//b", "a/", ".lock", "a\0b"]
OUT += ["a\nb", "a\\b", "*", "é", "a b", " "]


def entry(root: Path, stage: str = "pair", shard: str = "s") -> LedgerEntry:
    file = storage.commit_file(str(root), f"pairs/{shard}.bin", b"123", 1)
    return commit_entry(str(root), stage, Task(shard, NO_CELL, file.path, "print"), [file])


def rewritten(line: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """A line of the ledger as a forger writes it: with a seal that fits."""
    record = unsealed(line.read_bytes())
    change(record)
    line.write_bytes(sealed(record))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the atlas whose files must stay as they are."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("victim", "s.json", "s.parquet", "s.bin"):
        (folder / name).write_bytes(b"not yours")
    return folder


@pytest.mark.parametrize("name", OUT)
@pytest.mark.parametrize("key", ["file", "others", "shard", "stage"])
def test_a_ledger_line_with_a_name_that_is_not_plain_is_none(
    tmp_path: Path, key: str, name: str
) -> None:
    """Issue 19, 16: `../` in path, file or shard name."""
    record = unsealed(entry(tmp_path).to_json())
    if key == "others":
        record["others"] = [dataclasses.asdict(FileRef("a", 1, 1, "0" * 32)) | {"path": name}]
    else:
        record[key] = name
    with pytest.raises(ValueError, match=r"plain|path"):
        LedgerEntry.from_json(sealed(record))


@pytest.mark.parametrize("name", OUT)
def test_a_path_in_an_atlas_is_made_of_plain_names(tmp_path: Path, name: str) -> None:
    """Issue 19, 16: also where a table or a model says the name."""
    with pytest.raises(UserError, match="plain"):
        storage.join(str(tmp_path), name)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rows", -1), ("rows", "3"), ("bytes", True), ("digest", "x"), ("digest", None),
        ("inputs", []), ("inputs", {"a": 1}), ("counts", {"images": "1"}), ("content", 3),
        ("others", [{"path": "a"}]), ("others", 3), ("file", ["a"]), ("stage", None),
    ],
)  # fmt: skip
def test_a_ledger_line_with_a_value_of_another_type_is_none(
    tmp_path: Path, key: str, value: object
) -> None:
    """Issue 19, 16: an atlas is data that anybody may have written."""
    record = unsealed(entry(tmp_path).to_json())
    record[key] = value
    with pytest.raises(ValueError, match=r"."):
        LedgerEntry.from_json(sealed(record))


@pytest.mark.parametrize("change", [{"shard": "other"}, {"stage": "verify"}])
def test_a_ledger_line_that_speaks_of_another_place_counts_as_missing(
    tmp_path: Path, change: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Issue 19, 16: stage and shard are those of the line's own place in ledger/."""
    entry(tmp_path)
    rewritten(tmp_path / "ledger/pair/s.json", lambda record: record.update(change))
    assert AtlasStore(str(tmp_path)).ledger("pair") == {}
    assert "it speaks of ledger/" in caplog.text


def test_forgetting_deletes_nothing_outside(tmp_path: Path, outside: Path) -> None:
    """Issue 19, 16: `pair` deleted what a shard of its ledger named."""
    root = tmp_path / "atlas"
    entry(root)
    before = snapshot(outside)
    forged = {"bytes": 9, "digest": storage.digest(b"not yours")}
    for shard, name in (("s0", "../outside/victim"), ("s1", str(outside / "victim"))):
        line = root / "ledger" / "pair" / f"{shard}.json"
        shutil.copy(root / "ledger/pair/s.json", line)
        change = functools.partial(dict.update, **forged, shard=shard, file=name)
        rewritten(line, change)
    run = Run(AtlasStore(str(root)), BuildOptions(atlas=str(root)))
    run.forget_others(PAIR, set())
    assert not (root / "pairs" / "s.bin").exists()
    assert snapshot(outside) == before


@pytest.mark.parametrize("link", ["pairs", "pairs/s.bin", "ledger", "ledger/pair"])
def test_a_link_out_of_the_atlas_is_named_and_not_followed(
    tmp_path: Path, outside: Path, link: str
) -> None:
    """Issue 19, 16: resolved paths stay inside the root, for reading, writing and deleting."""
    root = tmp_path / "atlas"
    entry(root)
    target = outside / "kept"
    shutil.copytree(root / link, target) if (root / link).is_dir() else shutil.copy(
        root / link, target
    )
    before = snapshot(outside)
    storage_path = root / link
    shutil.rmtree(storage_path) if storage_path.is_dir() else storage_path.unlink()
    storage_path.symlink_to(target)
    with pytest.raises(UserError, match="leads out of the atlas"):
        AtlasStore(str(root)).ledger("pair")
    with pytest.raises(UserError, match="leads out of the atlas"):
        entry(root)
    with pytest.raises(UserError, match="leads out of the atlas"):
        AtlasStore(str(root)).forget("pair", ["s"])
    assert snapshot(outside) == before


def test_a_link_inside_the_atlas_and_the_atlas_itself_may_be_links(tmp_path: Path) -> None:
    entry(tmp_path / "real")
    (tmp_path / "real" / "pairs").rename(tmp_path / "real" / "elsewhere")
    (tmp_path / "real" / "pairs").symlink_to("elsewhere")
    (tmp_path / "atlas").symlink_to("real")
    assert list(AtlasStore(str(tmp_path / "atlas")).ledger("pair")) == ["s"]


def test_a_lock_that_is_a_link_is_neither_followed_nor_emptied(
    tmp_path: Path, outside: Path
) -> None:
    """Issue 19, 16: a symlink as `.lock` was truncated."""
    (tmp_path / ".lock").symlink_to(outside / "victim")
    with pytest.raises(UserError, match="not a regular file"), AtlasStore(str(tmp_path)).locked():
        pytest.fail("a link was taken for the lock")
    assert (outside / "victim").read_bytes() == b"not yours"


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_a_lock_that_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    """Issue 19, 16: a FIFO as `.lock` hung."""
    os.mkfifo(tmp_path / ".lock") if kind == "fifo" else (tmp_path / ".lock").mkdir()
    with pytest.raises(UserError, match="not a regular file"), AtlasStore(str(tmp_path)).locked():
        pytest.fail("taken for the lock")


def test_a_lock_keeps_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_bytes(b"kept")
    os.link(tmp_path / ".lock", tmp_path / "hard")
    with AtlasStore(str(tmp_path)).locked():
        pass
    assert (tmp_path / "hard").read_bytes() == b"kept"


@pytest.mark.parametrize("at", ["atlas.json", "ledger/pair/s.json", "pairs/s.bin"])
def test_a_pipe_in_place_of_a_file_keeps_nobody_waiting(tmp_path: Path, at: str) -> None:
    """Issue 19, 16: brothers of the FIFO as `.lock`."""
    entry(tmp_path)
    path = tmp_path / at
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert AtlasStore(str(tmp_path)).ledger("pair").keys() == (
        {"s"} if at == "atlas.json" else set()
    )
    with pytest.raises(OSError, match="not a regular file"):
        storage.read_bytes(str(path))
    with pytest.raises(OSError, match="not a regular file"):
        storage.read_table(str(path))


def test_a_name_from_a_table_does_not_lead_out(tmp_path: Path, outside: Path) -> None:
    """Issue 19, 16: tiles are called after image ids, which a table says."""
    table = pa.table({"image_id": ["x"]})
    before = snapshot(outside)
    with pytest.raises(UserError, match="plain"):
        storage.commit_table(str(tmp_path), "work/tiles/c../../outside/s.parquet", table)
    assert snapshot(outside) == before


def test_a_model_that_the_manifest_names_is_one_of_ours(tmp_path: Path) -> None:
    """Issue 19, 16: names in atlas.json."""
    atlas = AtlasStore(str(tmp_path), {"report": {"model": "../../outside"}})
    with pytest.raises(UserError, match="must be one of"):
        options_shown(atlas)


def test_a_local_copy_lies_in_a_folder_of_this_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 19, 16: `/tmp/vladmap-<digest>` planted by another user was trusted."""
    data = b"weights"
    planted = Path(tempfile.gettempdir()) / f"vladmap-{storage.digest(data)}"
    planted.write_bytes(b"planted")
    try:
        is_local = storage.is_local
        monkeypatch.setattr(storage, "is_local", lambda path: path != "far" and is_local(path))
        monkeypatch.setattr(
            storage, "read_bytes", lambda path: data if path == "far" else Path(path).read_bytes()
        )
        copy = Path(storage.local_copy("far"))
        assert copy.read_bytes() == data
        assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700
    finally:
        planted.unlink()


@pytest.mark.slow
def test_a_build_on_a_forged_atlas_leaves_everything_outside_as_it_was(
    tmp_path: Path, outside: Path
) -> None:
    """Issue 19, 16: every line of an atlas names files outside; the build makes all anew."""
    photos, root = tmp_path / "photos", tmp_path / "atlas"
    write_drive(photos, 4)
    build(photos, root)
    for line in (root / "ledger").rglob("*.json"):

        def forge(record: dict[str, Any]) -> None:
            name = os.path.basename(record["file"])
            path = outside / name
            shutil.copy(root / record["file"], path)
            record["file"] = f"../outside/{name}"

        rewritten(line, forge)
    before = snapshot(outside)
    build(photos, root)
    assert snapshot(outside) == before
    assert len(AtlasStore(str(root)).ledger("pair")) == 1
    json.loads((root / "atlas.json").read_bytes())
