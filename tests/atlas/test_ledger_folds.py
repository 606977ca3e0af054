"""Folded lines of the ledger: what was said in many files is said in one, through crashes too."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_entry
from vladmap.atlas.integrity import check_atlas, forget
from vladmap.atlas.ledger import LedgerReader
from vladmap.atlas.ledger_folds import delete_lines, read_fold
from vladmap.atlas.store import AtlasStore
from vladmap.schemas.records import NO_CELL, LedgerEntry, Task

STAGE = "index-parts"
SHARDS = [f"g0000-000-none-{number:03d}" for number in range(12)]


def commit(root: Path, shard: str, data: bytes) -> LedgerEntry:
    path = layout.partial_index("vlad", shard)
    files = [storage.commit_file(str(root), path, data, 1)]
    return commit_entry(str(root), STAGE, Task(shard, NO_CELL, path, "print"), files)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for shard in SHARDS:
        commit(tmp_path, shard, shard.encode())
    return tmp_path


def entries(root: Path) -> dict[str, LedgerEntry]:
    return LedgerReader(str(root)).entries(STAGE)


def alone(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "ledger" / STAGE).glob("*.json"))


def fold(root: Path) -> None:
    LedgerReader(str(root)).fold(STAGE, 1)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_folded_ledger_says_what_its_lines_said_in_the_same_order(root: Path) -> None:
    before = entries(root)
    fold(root)
    assert alone(root) == []
    assert list(entries(root).items()) == list(before.items())
    first = (root / layout.ledger_fold(STAGE)).read_bytes()
    commit(root, SHARDS[0], SHARDS[0].encode())
    fold(root)
    again = (root / layout.ledger_fold(STAGE)).read_bytes()
    # All but the time of the file that was written anew.
    assert again.split(b"\n")[1:] == first.split(b"\n")[1:]


def test_few_lines_stay_files_that_people_can_read(root: Path) -> None:
    LedgerReader(str(root)).fold(STAGE, len(SHARDS) + 1)
    assert alone(root) == SHARDS


def test_a_line_of_its_own_is_newer_than_the_fold(root: Path) -> None:
    fold(root)
    changed = commit(root, SHARDS[3], b"made anew")
    assert entries(root)[SHARDS[3]] == changed
    assert len(entries(root)) == len(SHARDS)
    fold(root)
    assert entries(root)[SHARDS[3]] == changed


@pytest.mark.parametrize("deleted", [0, 5, 11])
def test_a_fold_that_was_interrupted_loses_nothing(
    root: Path, deleted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the fold is in place, and after so many of the lines were deleted."""
    before = entries(root)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            fold(root)
    assert entries(root) == before
    assert alone(root) == SHARDS
    left = iter(range(deleted))
    delete = storage.delete

    def few(path: str) -> None:
        if path.endswith(".json") and next(left, None) is None:
            raise KeyboardInterrupt
        delete(path)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "delete", few)
        with pytest.raises(KeyboardInterrupt):
            fold(root)
    assert len(alone(root)) == len(SHARDS) - deleted
    assert entries(root) == before
    fold(root)
    assert entries(root) == before
    assert alone(root) == []


@pytest.mark.parametrize("shard", [SHARDS[0], SHARDS[7], SHARDS[11]])
def test_what_is_taken_out_is_out_of_fold_and_files_and_the_rest_stays(
    root: Path, shard: str
) -> None:
    before = entries(root)
    fold(root)
    commit(root, SHARDS[7], SHARDS[7].encode())
    store = AtlasStore(str(root))
    store.forget(STAGE, [shard, "unknown"])
    assert entries(root) == {name: entry for name, entry in before.items() if name != shard}
    assert not (root / layout.partial_index("vlad", shard)).exists()
    delete_lines(str(root), STAGE, SHARDS)
    assert entries(root) == {}


def damaged_seal(root: Path) -> None:
    flip(root / layout.ledger_fold(STAGE), 3)


def damaged_entry(root: Path) -> None:
    flip(root / layout.ledger_fold(STAGE), 150)


def damaged_file(root: Path) -> None:
    flip(root / layout.partial_index("vlad", SHARDS[0]), 2)


def missing_file(root: Path) -> None:
    (root / layout.partial_index("vlad", SHARDS[0])).unlink()


@pytest.mark.parametrize("damage", [damaged_seal, damaged_entry, damaged_file, missing_file])
def test_damage_costs_its_shard_alone_and_is_found_and_repaired(
    root: Path, damage: Callable[[Path], None]
) -> None:
    fold(root)
    damage(root)
    reader = LedgerReader(str(root))
    assert sorted(reader.entries(STAGE)) == SHARDS[1:]
    (lost,) = reader.lost[STAGE].values()
    assert lost.shard == SHARDS[0]
    fold(root)  # does not make a lost line whole, nor forget it
    assert sorted(entries(root)) == SHARDS[1:]
    store = AtlasStore(str(root))
    findings = check_atlas(store)
    assert findings
    forget(store, findings)
    assert check_atlas(AtlasStore(str(root))) == []
    assert sorted(entries(root)) == SHARDS[1:]
    assert commit(root, SHARDS[0], b"again") == entries(root)[SHARDS[0]]


def test_a_fold_that_cannot_be_read_for_a_moment_is_not_written_anew(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = entries(root)
    fold(root)
    changed = commit(root, SHARDS[3], b"made anew")
    path = root / layout.ledger_fold(STAGE)
    bytes_before, read = path.read_bytes(), storage.read_bytes

    def failing(place: str) -> bytes:
        if place == str(path):
            raise OSError(5, "Input/output error", place)
        return read(place)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "read_bytes", failing)
        for work in (
            lambda: fold(root),
            lambda: delete_lines(str(root), STAGE, SHARDS[:1]),
            lambda: entries(root),
        ):
            with pytest.raises(OSError, match="Input/output error"):
                work()
    assert path.read_bytes() == bytes_before
    assert entries(root) == before | {SHARDS[3]: changed}


def test_a_file_changed_between_its_line_and_the_fold_is_not_believed(root: Path) -> None:
    """Same size, another byte: the fold is younger than the change, and yet must not cover it."""
    damaged_file(root)
    fold(root)
    assert sorted(entries(root)) == SHARDS[1:]
    assert alone(root) == [SHARDS[0]]


def test_a_truncated_fold_loses_the_lines_that_are_gone_and_no_others(root: Path) -> None:
    fold(root)
    path = root / layout.ledger_fold(STAGE)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(lines[:4]) + b"\n" + lines[4][:60])
    assert sorted(entries(root)) == SHARDS[:4]


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden"])
def test_a_hostile_fold_names_no_place_outside(root: Path, name: str) -> None:
    fold(root)
    path = root / layout.ledger_fold(STAGE)
    rest = path.read_bytes().split(b"\n")[0].split(b" ", 1)[1]
    for old, new in (
        (SHARDS[0].encode(), name.encode()),
        (b"work/index/vlad/" + SHARDS[0].encode(), b"../" + SHARDS[0].encode()),
    ):
        said = rest.replace(old, new)
        path.write_bytes(storage.digest(said).encode() + b" " + said + b"\n")
        assert entries(root) == {}
        store = AtlasStore(str(root))
        store.ledger(STAGE)
        store.tidy()


def test_a_copy_is_read_once_and_then_believed(root: Path, tmp_path_factory) -> None:
    import shutil

    before = entries(root)
    fold(root)
    copied = tmp_path_factory.mktemp("copy") / "atlas"
    shutil.copytree(root, copied)
    assert entries(copied) == before
    reader = LedgerReader(str(copied), renewing=True)
    assert reader.entries(STAGE) == before
    believed = {line.shard: line.believed for line in read_fold(str(copied), STAGE)}
    for shard in SHARDS:
        changed = (copied / layout.partial_index("vlad", shard)).stat().st_ctime_ns / 1e9
        assert believed[shard] == changed


def test_a_shard_that_is_read_while_it_is_folded_is_found(root: Path) -> None:
    reader = LedgerReader(str(root))
    line = reader.line(STAGE, SHARDS[2])
    fold(root)
    assert reader.line(STAGE, SHARDS[2]).entry == line.entry
    changed = commit(root, SHARDS[2], b"made anew")
    fold(root)
    assert reader.line(STAGE, SHARDS[2]).entry == changed
    assert reader.line(STAGE, "g0000-000-none-999").entry is None
    assert json.loads(json.dumps(changed.record()))["shard"] == SHARDS[2]
