"""What counts as a collection's photographs, and what is said of the rest."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem

from tests.drives import write_drive
from tests.pipeline.test_stages import build
from vladmap.photos.ids import image_id
from vladmap.pipeline import report_data
from vladmap.pipeline.collection import list_collection
from vladmap.schemas.rejects import UserError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())


def paths(source: Path | str) -> list[str]:
    return list_collection(str(source)).table["path"].to_pylist()


def notes(source: Path | str) -> str:
    return "\n".join(list_collection(str(source)).notes)


def test_linked_folders_are_read_and_circles_end(tmp_path: Path) -> None:
    """Issue 19, 10."""
    root = tmp_path / "photos"
    touch(root / "a.jpg", tmp_path / "other" / "b.jpg", tmp_path / "other" / "in" / "c.jpg")
    (root / "link").symlink_to(tmp_path / "other")
    (root / "self").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    (tmp_path / "other" / "in" / "back").symlink_to(root)
    (tmp_path / "other" / "in" / "round").symlink_to(tmp_path / "other")
    assert paths(root) == ["a.jpg", "link/b.jpg", "link/in/c.jpg"]
    assert "4 links to folders that are read anyway are left out" in notes(root)


def test_a_folder_reached_twice_is_read_once_by_its_own_path(tmp_path: Path) -> None:
    """Issue 19, 10: whatever sorts first."""
    touch(tmp_path / "photos" / "m" / "1.jpg", tmp_path / "far" / "2.jpg")
    for name in ("a", "z"):
        (tmp_path / "photos" / name).symlink_to(tmp_path / "photos" / "m")
        (tmp_path / "photos" / f"{name}far").symlink_to(tmp_path / "far")
    assert paths(tmp_path / "photos") == ["afar/2.jpg", "m/1.jpg"]
    assert "a, z, zfar" in notes(tmp_path / "photos")


def test_links_to_files_are_photographs_and_broken_ones_are_missing(tmp_path: Path) -> None:
    """Issue 19, 10."""
    touch(tmp_path / "photos" / "a.jpg", tmp_path / "b.jpg")
    (tmp_path / "photos" / "b.jpg").symlink_to(tmp_path / "b.jpg")
    (tmp_path / "photos" / "c.jpg").symlink_to("nowhere")
    (tmp_path / "photos" / "d.jpg").symlink_to("d.jpg")
    table = list_collection(str(tmp_path / "photos")).table
    assert table["kind"].to_pylist() == ["file", "file", "missing", "missing"]


@pytest.mark.parametrize(
    "name",
    [
        *("@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg", "._a.jpg", ".thumbnails/1.jpg", "x/.@__thumb/a.jpg"),  # noqa: E501
        *("#recycle/a.jpg", "$RECYCLE.BIN/S-1/$R1.jpg", ".Trash-1000/files/a.jpg", "@Recycle/a.jpg"),  # noqa: E501
        *("__MACOSX/._a.jpg", ".hidden/deep/a.jpg", "x/.a.jpg", "System Volume Information/a.jpg"),
    ],
)  # fmt: skip
def test_thumbnails_waste_and_hidden_files_are_left_out_counted_and_named(
    tmp_path: Path, name: str
) -> None:
    """Issue 19, 10: in folders and by globs alike."""
    touch(tmp_path / "a.jpg", tmp_path / name)
    for source in (tmp_path, f"{tmp_path}/**"):
        assert paths(source) == ["a.jpg"]
        assert "1 thumbnails, waste and hidden files are left out" in notes(source)
        assert name.split("/")[0].removeprefix("x") in notes(source)


def test_a_collection_may_itself_lie_in_a_hidden_folder_and_a_manifest_may_name_one(
    tmp_path: Path,
) -> None:
    touch(tmp_path / ".mine" / "a.jpg")
    assert paths(tmp_path / ".mine") == ["a.jpg"]
    (tmp_path / "list.csv").write_text("uri\n.mine/a.jpg\n")
    assert paths(tmp_path / "list.csv") == [".mine/a.jpg"]


def test_other_files_are_counted_by_their_endings(tmp_path: Path) -> None:
    """Issue 19, 10: nothing is silent."""
    touch(*(tmp_path / name for name in ("a.jpg", "b.txt", "c.TXT", "d.dng", "README")))
    assert notes(tmp_path) == (
        "4 files without the name of a photograph are left out: 2 .txt, 1 .dng, 1 no ending"
    )
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(UserError, match=r"no photographs there .*2 \.txt, 1 \.dng"):
        list_collection(str(tmp_path))


@pytest.mark.parametrize(
    "name", ["a.HEIC", "b.heif", "c.hif", "d.avif", "e.JPE", "f.mpo", "g.jfif"]
)
def test_phones_and_cameras_other_endings_are_photographs_names(tmp_path: Path, name: str) -> None:
    """Issue 19, 10: read, or rejected by name; never passed over."""
    touch(tmp_path / name)
    assert paths(tmp_path) == [name]


def test_names_that_look_alike_are_images_of_their_own(tmp_path: Path) -> None:
    """Issue 19, 10: a backslash, another case, another form of Unicode."""
    composed, decomposed = (unicodedata.normalize(form, "å.jpg") for form in ("NFC", "NFD"))
    names = ["a0.jpg", "\\a0.jpg", "\\\\a0.jpg", "A0.jpg", composed, decomposed]
    touch(*(tmp_path / name for name in names))
    assert paths(tmp_path) == sorted(names)
    assert len({image_id(path) for path in paths(tmp_path)}) == 6


def test_a_folder_whose_name_begins_like_the_manifests_keeps_its_rows(tmp_path: Path) -> None:
    """Issue 19, 10: `photos2/a.jpg` beside `photos/2/a.jpg`."""
    touch(tmp_path / "photos" / "2" / "a.jpg", tmp_path / "photos2" / "a.jpg")
    manifest = tmp_path / "photos" / "list.csv"
    manifest.write_text("uri\n2/a.jpg\n../photos2/a.jpg\n")
    assert paths(manifest) == [str(tmp_path / "photos2" / "a.jpg"), "2/a.jpg"]


def test_one_file_by_two_names_is_one_row_and_said(tmp_path: Path) -> None:
    """Issue 19, 11: the first row counts."""
    touch(tmp_path / "a.jpg", tmp_path / "b.jpg")
    rows = ["a.jpg,1", "./a.jpg,2", f"{tmp_path}/a.jpg,3", "b.jpg,4", "x/../b.jpg,5"]
    (tmp_path / "list.csv").write_text("\n".join(["uri,heading", *rows]))
    table = list_collection(str(tmp_path / "list.csv")).table
    assert table["path"].to_pylist() == ["a.jpg", "b.jpg"]
    assert table["overrides"].to_pylist() == ['{"heading_deg": 1.0}', '{"heading_deg": 4.0}']
    remarks = notes(tmp_path / "list.csv")
    assert (
        "3 rows name a file that a row before them names, and do not count: a.jpg, a.jpg" in remarks
    )


def test_paths_of_another_system_are_read_and_said(tmp_path: Path) -> None:
    """Issue 19, 11, its kind."""
    touch(tmp_path / "in" / "a.jpg", tmp_path / "in\\b.jpg")
    (tmp_path / "list.csv").write_text("uri\nin\\a.jpg\nin\\b.jpg\n")
    assert paths(tmp_path / "list.csv") == ["in/a.jpg", "in\\b.jpg"]
    assert "1 paths with \\ are read with /" in notes(tmp_path / "list.csv")


def test_a_manifests_notes_reach_the_listing(tmp_path: Path) -> None:
    """Issue 19, 11: the log, the summary and the report say them."""
    touch(tmp_path / "a.jpg")
    (tmp_path / "list.csv").write_text("uri,x,y\na.jpg,1,2\n")
    assert "not read: x, y" in notes(tmp_path / "list.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_folder_that_may_not_be_entered_is_unreadable(tmp_path: Path) -> None:
    touch(tmp_path / "open" / "a.jpg", tmp_path / "shut" / "b.jpg")
    (tmp_path / "shut").chmod(0o600)
    try:
        kinds = list_collection(str(tmp_path)).table["kind"].to_pylist()
    finally:
        (tmp_path / "shut").chmod(0o700)
    assert kinds == ["file", "unreadable"]


def test_globs_follow_linked_folders_too(tmp_path: Path) -> None:
    """Issue 19, 10."""
    touch(tmp_path / "in" / "a.jpg", tmp_path / "in" / "x" / "b.jpg", tmp_path / "far" / "c.png")
    (tmp_path / "in" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "round").symlink_to(tmp_path / "in")
    assert paths(f"{tmp_path}/in/**") == ["a.jpg", "far/c.png", "x/b.jpg"]
    assert paths(f"{tmp_path}/in/*/*.png") == ["far/c.png"]
    assert paths(f"{tmp_path}/in/[ab].jpg") == ["a.jpg"]


class Store(LocalFileSystem):
    """A store whose files lie under the same path on local disk."""

    @classmethod
    def scheme(cls) -> str:
        return "vladmapstore"

    def metadata(self, path: str) -> FileMetadata:
        return super().metadata(path.removeprefix("vladmapstore:/"))


def test_a_manifest_of_a_store_tells_when_its_files_change(tmp_path: Path) -> None:
    """Issue 19, 8, its kind: every remote file of a manifest had size 0 and time 0, for ever."""
    photo = tmp_path / "a.jpg"
    (tmp_path / "list.csv").write_text(f"uri\nvladmapstore:/{photo}\nvladmapstore://gone.jpg\n")
    seen = []
    for moment in (1_714_000_000, 1_714_000_001):
        touch(photo)
        os.utime(photo, (moment, moment))
        rows = list_collection(str(tmp_path / "list.csv")).table.to_pylist()
        assert [row["kind"] for row in rows] == ["file", "file"]  # reading tells what is missing
        seen.append(rows[1])
    assert [row["modified_ns"] for row in seen] == [
        1_714_000_000_000_000_000,
        1_714_000_001_000_000_000,
    ]
    assert seen[0]["size"] == 5


def test_what_was_left_out_is_in_the_manifest_and_the_summary(tmp_path: Path) -> None:
    """Issue 19, 10 and 11: where their user looks."""
    write_drive(tmp_path / "photos", 2)
    touch(tmp_path / "photos" / "@eaDir" / "x.jpg", tmp_path / "photos" / "notes.txt")
    run = build(tmp_path / "photos", tmp_path / "atlas", upto=1)
    remarks = run.atlas.manifest["collection_notes"]
    assert len(remarks) == 2
    shown = " ".join(report_data.summary(run).split())
    assert all(note in shown for note in remarks)
