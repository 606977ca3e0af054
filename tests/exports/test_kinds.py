"""What every kind of export keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.exports.contents import write_contents
from tests.exports.test_colmap import write_atlas
from vladmap.exports.base import Exporter
from vladmap.exports.kinds import EXPORTS, ExportKind
from vladmap.jobs.main import main

OPTIONS = {
    "images": ["--images", "elsewhere"],
    "link": ["--link"],
    "copy": ["--copy"],
    "text": ["--text"],
    "max_pixels": ["--max-pixels", "1000000"],
    "queries": ["--queries", "elsewhere"],
    "descriptors": ["--descriptors", "gem"],
}

each_kind = pytest.mark.parametrize("kind", EXPORTS, ids=lambda kind: kind.name)
each_kind_of_map = pytest.mark.parametrize(
    "kind", [kind for kind in EXPORTS if kind.of_map], ids=lambda kind: kind.name
)


@each_kind
def test_a_kind_names_options_that_there_are_and_a_module_with_its_exporter(
    kind: ExportKind,
) -> None:
    assert set(kind.options) <= set(OPTIONS)
    assert isinstance(kind.load(), Exporter)


@each_kind
def test_an_option_that_the_kind_does_not_read_is_refused_before_anything_is_written(
    kind: ExportKind, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in set(OPTIONS) - set(kind.options):
        output = tmp_path / name
        words = ["--atlas", "nowhere", "--to", kind.name, "--output", str(output), *OPTIONS[name]]
        assert main(["export", *words]) == 2
        assert f"{OPTIONS[name][0]} is not for --to {kind.name}" in capsys.readouterr().err
        assert not output.exists()


@each_kind_of_map
def test_the_same_atlas_gives_the_same_bytes(
    kind: ExportKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas = write_atlas(tmp_path, monkeypatch)
    write_contents(atlas)
    for name in ("once", "again"):
        words = ["--atlas", str(atlas), "--to", kind.name, "--output", str(tmp_path / name)]
        assert main(["export", *words]) == 0
    files = [
        {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        for folder in (tmp_path / "once", tmp_path / "again")
    ]
    assert files[0] == files[1] != {}


@each_kind_of_map
def test_a_model_that_there_is_not_and_a_folder_with_files_are_one_line(
    kind: ExportKind,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    atlas = write_atlas(tmp_path, monkeypatch)
    write_contents(atlas)
    start = ["export", "--atlas", str(atlas), "--to", kind.name, "--output"]
    assert main([*start, str(tmp_path / "new"), "--model", "7"]) == 2
    assert "--model 7" in capsys.readouterr().err
    assert main([*start, str(atlas)]) == 2
    assert "holds files: choose a new folder" in capsys.readouterr().err
