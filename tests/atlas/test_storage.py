"""Files by their very names, whatever signs are in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vladmap.atlas import listings, storage
from vladmap.atlas.commit import commit_entry
from vladmap.atlas.store import AtlasStore
from vladmap.schemas.records import NO_CELL, Task

NAMES = ["atlas [1]", "[a-z]", "what?", "all*", "[!x]", "tab\tand \\"]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_a_name_and_never_a_pattern(name: str, tmp_path: Path) -> None:
    """Issue 19, 21: an atlas in a folder `atlas [1]` lost its ledger and could not delete."""
    root = str(tmp_path / name)
    file = storage.commit_file(root, "work/f.bin", b"123", 1)
    commit_entry(root, "ingest", Task("s", NO_CELL, file.path, "print"), [file])
    (tmp_path / name / "ledger" / "ingest" / ".half.json").write_bytes(b"{")
    folder = storage.join(root, "ledger", "ingest")
    assert listings.list_files(folder, ".json") == [storage.join(folder, "s.json")]
    atlas = AtlasStore(root)
    assert list(atlas.ledger("ingest")) == ["s"]
    atlas.forget("ingest", ["s"])
    assert not storage.exists(storage.join(root, "work/f.bin"))
    assert listings.list_files(folder, ".json") == []


def test_a_pattern_in_a_name_deletes_nothing_else(tmp_path: Path) -> None:
    """Issue 19, 21: deleting `a[12]` deleted `a1` and `a2`."""
    for name in ("a1", "a2"):
        (tmp_path / name).touch()
    storage.delete(str(tmp_path / "a[12]"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a1", "a2"]


def test_what_is_not_there_is_an_empty_listing_and_deleted_already(tmp_path: Path) -> None:
    assert listings.list_files(str(tmp_path / "nowhere"), ".json") == []
    storage.delete(str(tmp_path / "nowhere"))


def test_deleting_a_link_to_a_folder_leaves_the_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").touch()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    storage.delete(str(tmp_path / "link"))
    assert not (tmp_path / "link").exists()
    assert (tmp_path / "folder" / "kept").exists()
